"""What PixArt backbones promise: the right target, adapters alone in training, a colour loss with a gradient."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from anastyle import Autoencoder, Batch, Condition, ConfigError
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


def test_min_snr_weighs_clean_steps_less(autoencoder: Autoencoder, tmp_path: Path) -> None:
    backbone = tiny(autoencoder, tmp_path, min_snr=5.0, prediction="epsilon", colour="off")

    weights = backbone._weight(torch.tensor([1, 500, 999]))

    assert weights[0] < 0.1
    assert weights[2] == pytest.approx(1.0)


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


def test_the_colour_loss_has_a_gradient(autoencoder: Autoencoder, tmp_path: Path) -> None:
    backbone = tiny(autoencoder, tmp_path, colour_every=2)
    batch = latents()

    backbone.losses(batch, condition(12))["colour"].backward()

    gradient = sum(p.grad.abs().sum() for p in backbone.transformer.parameters() if p.grad is not None)
    assert gradient > 0
    assert all(p.grad is None for p in autoencoder.parameters())


def test_between_its_steps_the_colour_loss_is_zero(autoencoder: Autoencoder, tmp_path: Path) -> None:
    backbone, batch = tiny(autoencoder, tmp_path, colour_every=2), latents()
    batch.step = 1

    assert backbone.losses(batch, condition(12))["colour"] == 0


def test_a_transformer_of_other_latents_is_refused(autoencoder: Autoencoder, tmp_path: Path) -> None:
    options = PixArtLoRA.tiny(tmp_path)
    autoencoder.channels = 16

    with pytest.raises(ConfigError, match="paints 4 latent channels, the autoencoder has 16"):
        PixArtLoRA(PixArtLoRA.Config(**options), autoencoder=autoencoder, image_size=SIZE)
