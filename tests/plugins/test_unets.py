"""Stable Diffusion's U-Nets: what SDXL is told beside words, which sizes fit, what is refused."""

from pathlib import Path

import pytest
import torch

from anastyle import AUTOENCODERS, BACKBONES, Autoencoder, Batch, Condition, ConfigError
from anastyle.cli import main

ROOT = Path(__file__).parents[2]
SMOKE = str(ROOT / "experiments" / "smoke.yaml")
WORDS = ["encoder=null", "aligner={name: token_reader}", "fuser={name: text_tokens}", "only=full"]


def made(name: str, autoencoder: Autoencoder, **options):
    cls = BACKBONES.get(name)
    torch.manual_seed(0)
    return cls(cls.Config(path=None, widths=[32, 64], cross_dim=12, **options), autoencoder=autoencoder, image_size=32)


def test_a_network_from_scratch_is_trained_whole(autoencoder):
    backbone = made("sd15", autoencoder)

    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.width == 12
    assert backbone.exports == ()


def test_sdxl_sees_the_pooled_embedding(autoencoder, shaken):
    backbone = shaken(made("sdxl", autoencoder, pooled_dim=6)).eval()
    latent, at = torch.randn(2, *backbone.noise_shape()), torch.tensor([500, 500])
    tokens, mask = torch.randn(2, 3, 12), torch.ones(2, 3, dtype=torch.bool)
    one, other = (Condition(tokens, mask, torch.full((2, 6), value)) for value in (0.0, 1.0))

    assert backbone.pooled == 6
    with torch.no_grad():
        assert not torch.allclose(backbone.predict(latent, at, one), backbone.predict(latent, at, other), atol=1e-4)


@pytest.mark.parametrize("widths", [[64], [48, 64], [32, 80]])
def test_widths_that_cannot_be_built_are_refused(widths):
    with pytest.raises(ConfigError, match=r"widths=\["):
        BACKBONES.get("sd15").Config(path=None, widths=widths)


def test_sdxl_needs_a_fuser_that_hands_the_pooled_embedding_on(capsys):
    assert main(["check", SMOKE, "only=full", "backbone={name: sdxl, path: null}"]) == 2
    assert (
        "backbone: 'sdxl' needs a caption's pooled embedding, and fuser 'hffm' hands none on" in capsys.readouterr().err
    )


def test_sdxl_from_scratch_fits_an_embedder_of_its_width(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ANASTYLE_TRACKING", "off")
    words = [SMOKE, *WORDS, "data.train=48", "data.test=32", f"output={tmp_path}", "stages.evaluate=null"]
    assert main(["run", *words, "backbone={name: sdxl, path: null, pooled_dim: 7}"]) == 2
    assert "takes a pooled embedding of 7 numbers, and the embedder's has" in capsys.readouterr().err


def test_the_image_stream_starts_as_the_checkpoint_and_the_mask_stream_elsewhere(autoencoder, tmp_path):
    options = BACKBONES.get("sd15").tiny(tmp_path)
    alone, pair = (
        cls(cls.Config(**options), autoencoder=autoencoder, image_size=32).eval()
        for cls in map(BACKBONES.get, ("sd15", "medsegfactory"))
    )
    latent, at = torch.randn(2, *alone.noise_shape()), torch.tensor([500, 500])
    asked = Condition(torch.randn(2, 3, 12), torch.ones(2, 3, dtype=torch.bool))

    with torch.no_grad():
        image, mask = pair.predict(latent.repeat(1, 2, 1, 1), at, asked).chunk(2, dim=1)
        torch.testing.assert_close(image, alone.predict(latent, at, asked))
    assert not torch.allclose(image, mask, atol=1e-2)


def test_streams_see_each_other_once_trained(autoencoder, shaken):
    backbone = made("medsegfactory", autoencoder).eval()
    latent, at = torch.randn(2, *backbone.noise_shape()), torch.tensor([500, 500])
    other = torch.cat([latent[:, :4], torch.randn(2, 4, *latent.shape[2:])], dim=1)  # of the mask stream alone
    asked = Condition(torch.randn(2, 3, 12), torch.ones(2, 3, dtype=torch.bool))

    def image_stream(noisy):
        with torch.no_grad():
            return backbone.predict(noisy, at, asked)[:, :4]

    assert backbone.noise_shape()[0] == 8
    torch.testing.assert_close(image_stream(latent), image_stream(other))
    shaken(backbone)
    assert not torch.allclose(image_stream(latent), image_stream(other), atol=1e-3)


def test_an_image_and_its_mask_come_back_from_their_latents():
    cls = AUTOENCODERS.get("kl")
    autoencoder = cls(cls.Config(path="compact")).eval()
    backbone = made("medsegfactory", autoencoder)
    image, mask = torch.full((2, 3, 32, 32), -0.5), torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:24, 8:24] = 1

    mean, _ = backbone.encode(Batch(["a", "b"], torch.arange(2), image=image, mask=mask)).chunk(2, dim=1)
    found = backbone.decode(mean)

    assert (found.image - image).abs().mean() < 0.3  # an even picture is none the autoencoder was trained on
    assert found.mask is not None
    assert ((found.mask >= 0.5).float() == mask).float().mean() > 0.97
