"""Stable Diffusion's U-Nets: what SDXL is told beside words, which sizes fit, what is refused."""

from pathlib import Path

import pytest
import torch

from anastyle import BACKBONES, Autoencoder, Condition, ConfigError
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
