"""The tiny autoencoder: the published layout is read, foreign files are refused, real images come back."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from anastyle import DataError, MissingError
from anastyle.config import read_section
from anastyle.registry import AUTOENCODERS
from anastyle_plugins.autoencoders.taef2 import FILES, TAEF2

REAL = Path(os.environ.get("ANASTYLE_TAEF2", Path(__file__).parents[3] / "shared" / "weights" / "taef2"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(TAEF2.tiny(tmp_path)["path"])


def make(folder: Path, **options: float) -> TAEF2:
    return TAEF2(TAEF2.Config(path=str(folder), **options)).eval()


def test_it_reads_the_published_layout(folder: Path) -> None:
    keys = load_file(folder / FILES[0]).keys() | {f"d{key}" for key in load_file(folder / FILES[1])}

    assert {"0.weight", "2.weight", "11.pool.1.weight", "14.bias", "d1.bias", "d3.pool.3.weight", "d7.weight",
            "d18.conv.4.bias", "d19.weight"} <= keys  # fmt: skip
    assert "2.bias" not in keys
    assert sum(value.numel() for value in make(folder).state_dict().values()) == 2_677_027


def test_latents_are_centred_and_scaled(folder: Path) -> None:
    image = torch.rand(2, 3, 32, 32) * 2 - 1

    raw, _ = make(folder, scale=1.0, shift=0.0).encode(image).chunk(2, dim=1)
    scaled, logvar = make(folder, scale=2.0, shift=0.5).encode(image).chunk(2, dim=1)

    torch.testing.assert_close(scaled, (raw - 0.5) * 2)
    assert (logvar < -10).all()


def test_decoding_undoes_the_scale_and_has_a_gradient(folder: Path) -> None:
    latent = torch.randn(1, 32, 4, 4)
    asked = ((latent - 0.5) * 2).requires_grad_()

    image = make(folder, scale=2.0, shift=0.5).decode(asked)
    image.sum().backward()

    torch.testing.assert_close(image, make(folder, scale=1.0, shift=0.0).decode(latent))
    assert asked.grad is not None
    assert asked.grad.abs().sum() > 0


def test_it_computes_in_full_precision_under_autocast(folder: Path) -> None:
    autoencoder = make(folder)

    with torch.autocast("cpu", torch.bfloat16):
        moments = autoencoder.encode(torch.zeros(1, 3, 16, 16))
        image = autoencoder.decode(moments[:, :32].bfloat16())

    assert moments.dtype == image.dtype == torch.float32


def test_a_path_must_be_named() -> None:
    _, _, problems = read_section(AUTOENCODERS, {"name": "taef2"}, "autoencoder")

    assert problems == ["autoencoder.path: has no default and must be set."]


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"not here: encoder\.safetensors, decoder\.safetensors"):
        make(tmp_path)


def test_other_weights_are_refused(folder: Path) -> None:
    save_file({"0.weight": torch.zeros(3)}, folder / FILES[1])

    with pytest.raises(DataError, match="is not a part of taef2"):
        make(folder)


@pytest.mark.skipif(not (REAL / FILES[0]).is_file(), reason="the real weights are not here: ANASTYLE_TAEF2=FOLDER")
def test_the_real_weights_bring_a_picture_back() -> None:
    autoencoder = make(REAL)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    disc = ((x**2 + y**2) < 0.3).float()
    image = torch.stack([0.5 * x - 0.4 * disc, 0.3 * y, -0.2 - 0.3 * disc])[None]

    with torch.no_grad():
        moments = autoencoder.encode(image)
        back = autoencoder.decode(moments[:, :32])

    assert (back - image).abs().mean() < 0.05
    assert 0.4 < moments[:, :32].std() < 2
