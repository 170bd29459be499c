"""What PixArt backbones promise: the right target, adapters alone in training, a colour loss with a gradient."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from anastyle import Autoencoder, Batch, Condition, ConfigError
from anastyle_plugins.autoencoders.taef2 import TAEF2
from anastyle_plugins.backbones.compact_dit import CompactDiT
from anastyle_plugins.backbones.pixart_lora import PixArtLoRA

SIZE = 32


def condition(width: int) -> Condition:
    return Condition(torch.randn(4, 2, width), torch.ones(4, 2, dtype=torch.bool))


def latents() -> Batch:
    moments = torch.cat([torch.randn(4, 4, 8, 8), torch.full((4, 4, 8, 8), -20.0)], dim=1)
    return Batch([str(i) for i in range(4)], torch.arange(4), latent=moments)


def tiny(autoencoder: Autoencoder, folder: Path, **options: object) -> CompactDiT:
    return CompactDiT(
        CompactDiT.Config(**{**CompactDiT.tiny(folder), **options}), autoencoder=autoencoder, image_size=SIZE
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_who_knows_the_latent_has_no_loss(
    autoencoder: Autoencoder, tmp_path: Path, prediction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, batch = tiny(autoencoder, tmp_path, prediction=prediction, colour="off"), latents()
    assert batch.latent is not None
    clean = batch.latent.chunk(2, dim=1)[0]

    def oracle(noisy: Tensor, timestep: Tensor, _condition: Condition) -> Tensor:
        kept = backbone.train_schedule.alphas_cumprod[timestep].view(-1, 1, 1, 1)
        noise = (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()
        return noise if prediction == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * clean

    monkeypatch.setattr(backbone, "predict", oracle)

    assert backbone.losses(batch, condition(12))["denoising"] < 1e-4


def test_a_pretrained_network_trains_its_adapters_alone(autoencoder: Autoencoder, tmp_path: Path) -> None:
    backbone = PixArtLoRA(PixArtLoRA.Config(**PixArtLoRA.tiny(tmp_path)), autoencoder=autoencoder, image_size=SIZE)

    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}

    assert trained
    assert all("lora_" in name for name in trained)
    assert not any("autoencoder" in name for name, _ in backbone.named_parameters())


def test_fresh_adapters_change_nothing(autoencoder: Autoencoder, tmp_path: Path) -> None:
    options = PixArtLoRA.tiny(tmp_path)
    plain, adapted = (
        PixArtLoRA(PixArtLoRA.Config(**{**options, "lora_rank": rank}), autoencoder=autoencoder, image_size=SIZE).eval()
        for rank in (0, 2)
    )
    asked, latent, at = condition(12), torch.randn(4, 4, 8, 8), torch.full((4,), 500)

    with torch.no_grad():
        torch.testing.assert_close(plain.predict(latent, at, asked), adapted.predict(latent, at, asked))


@pytest.mark.parametrize("colour", ["one_step", "sampled"])
def test_the_colour_loss_has_a_gradient(autoencoder: Autoencoder, tmp_path: Path, colour: str) -> None:
    backbone = tiny(autoencoder, tmp_path, colour=colour, colour_every=2, colour_steps=3, colour_batch=2)
    batch = latents()

    backbone.losses(batch, condition(12))["colour"].backward()

    gradient = sum(p.grad.abs().sum() for p in backbone.transformer.parameters() if p.grad is not None)
    assert gradient > 0
    assert all(p.grad is None for p in autoencoder.parameters())


def test_the_outline_weighs_more_where_it_is_asked_to(autoencoder: Autoencoder, tmp_path: Path) -> None:
    plain = tiny(autoencoder, tmp_path, colour="off")
    weighted = tiny(autoencoder, tmp_path, colour="off", contour_weight=9.0)
    weighted.load_state_dict(plain.state_dict())
    batch, losses = latents(), []
    for mask in (torch.zeros(4, 1, SIZE, SIZE), torch.ones(4, 1, SIZE, SIZE).tril(SIZE // 4)):
        batch.mask = mask
        for backbone in (plain, weighted):
            torch.manual_seed(0)
            losses.append(float(backbone.losses(batch, condition(12))["denoising"].detach()))

    assert (plain.reads, weighted.reads) == (("latent",), ("latent", "mask"))
    assert losses[0] == pytest.approx(losses[1]) == pytest.approx(losses[2])  # no outline, no difference
    assert losses[3] != pytest.approx(losses[2])


def test_between_its_steps_the_colour_loss_is_zero(autoencoder: Autoencoder, tmp_path: Path) -> None:
    backbone, batch = tiny(autoencoder, tmp_path, colour_every=2), latents()
    batch.step = 1

    assert backbone.losses(batch, condition(12))["colour"] == 0


def test_a_transformer_of_other_latents_is_refused(autoencoder: Autoencoder, tmp_path: Path) -> None:
    options = PixArtLoRA.tiny(tmp_path)
    autoencoder.channels = 16

    with pytest.raises(ConfigError, match="paints 4 latent channels, the autoencoder has 16"):
        PixArtLoRA(PixArtLoRA.Config(**options), autoencoder=autoencoder, image_size=SIZE)


def adapted(autoencoder: Autoencoder, folder: Path, **options: object) -> PixArtLoRA:
    torch.manual_seed(0)
    config = PixArtLoRA.Config(**{**PixArtLoRA.tiny(folder), **options})
    return PixArtLoRA(config, autoencoder=autoencoder, image_size=SIZE).train()


def step(backbone: PixArtLoRA) -> dict[str, Tensor]:
    """Return the gradients of one step, by name."""
    torch.manual_seed(1)
    torch.stack(list(backbone.losses(latents(), condition(12)).values())).sum().backward()
    return {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("autocast", [False, True])
def test_a_half_precision_base_keeps_what_is_trained_in_float32(
    autoencoder: Autoencoder, tmp_path: Path, autocast: bool
) -> None:
    backbone = adapted(autoencoder, tmp_path, base_precision="bf16")
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    frozen = [p for p in backbone.parameters() if not p.requires_grad]
    optimizer = torch.optim.AdamW(trained.values())

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        gradients = step(backbone)
    optimizer.step()

    assert {p.dtype for p in frozen} == {torch.bfloat16}
    assert set(gradients) == set(trained)
    assert {p.dtype for p in trained.values()} == {g.dtype for g in gradients.values()} == {torch.float32}
    assert {v.dtype for state in optimizer.state.values() for v in state.values()} == {torch.float32}
    assert backbone.predict(torch.randn(4, 4, 8, 8), torch.full((4,), 500), condition(12)).dtype == torch.float32


def test_a_half_precision_base_predicts_nearly_the_same(autoencoder: Autoencoder, tmp_path: Path) -> None:
    asked, latent, at = condition(12), torch.randn(4, 4, 8, 8), torch.full((4,), 500)

    with torch.no_grad():
        full, half = (
            adapted(autoencoder, tmp_path, base_precision=name).eval().predict(latent, at, asked)
            for name in ("fp32", "bf16")
        )

    torch.testing.assert_close(full, half, rtol=0.1, atol=0.1)
    assert not torch.equal(full, half)


def test_half_precision_is_refused_where_every_weight_is_trained(autoencoder: Autoencoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base_precision: bf16 is for a frozen base"):
        tiny(autoencoder, tmp_path, base_precision="bf16")


def test_checkpointing_gives_the_same_gradients(autoencoder: Autoencoder, tmp_path: Path) -> None:
    plain, twice = (
        step(adapted(autoencoder, tmp_path, gradient_checkpointing=choice, colour_every=1)) for choice in ("off", "on")
    )

    assert plain.keys() == twice.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, twice[name])


@pytest.mark.parametrize(("free", "on"), [(None, False), (1 << 40, False), (1 << 10, True)])
def test_checkpointing_follows_the_memory_of_the_device(
    autoencoder: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int | None, on: bool
) -> None:
    monkeypatch.setattr("anastyle_plugins.backbones._latent.free_memory", lambda device: free)
    backbone = adapted(autoencoder, tmp_path)

    step(backbone)

    assert backbone.transformer.gradient_checkpointing is on


def test_the_decision_changes_no_gradient(
    autoencoder: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = step(adapted(autoencoder, tmp_path))
    monkeypatch.setattr("anastyle_plugins.backbones._latent.free_memory", lambda device: 0)

    decided = step(adapted(autoencoder, tmp_path))

    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, decided[name])


@pytest.mark.parametrize("size", [128, 256])
def test_a_compact_transformer_of_tens_of_millions_fits_its_images(size: int) -> None:
    with torch.device("meta"):
        autoencoder = TAEF2(TAEF2.Config(path=""))
        config = CompactDiT.Config(path=None, layers=12, heads=6, head_dim=64, caption_channels=384)
        backbone = CompactDiT(config, autoencoder=autoencoder, image_size=size)

    side = size // 8
    assert backbone.noise_shape() == (32, side, side)
    assert backbone.transformer.config.sample_size == side
    assert backbone.transformer.pos_embed.pos_embed.shape == (1, (side // 2) ** 2, 384)
    assert 20e6 < sum(p.numel() for p in backbone.parameters()) < 60e6
