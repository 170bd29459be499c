"""The shipped networks: as listed, small, loadable, and good for something."""

import hashlib
from pathlib import Path

import pytest
import torch

import anastyle_plugins.pretrained as pretrained
from anastyle import Batch, Condition, ConfigError, Embedded, MissingError
from anastyle.data.images import pixels_of, signed
from anastyle.weights import find
from anastyle_plugins.autoencoders.kl import KL
from anastyle_plugins.backbones.compact_dit import CompactDiT
from anastyle_plugins.datasets.phantom import Phantom
from anastyle_plugins.embedders.tfidf_svd import TfidfSVD

FOLDER = Path(pretrained.__file__).parent


def test_the_files_are_those_that_are_listed_and_under_ten_megabytes() -> None:
    listed = dict(reversed(line.split(maxsplit=1)) for line in (FOLDER / "SHA256SUMS").read_text().splitlines())
    files = [*FOLDER.rglob("*.safetensors"), *FOLDER.rglob("*.json")]
    present = {f"{file.parent.name}/{file.name}" for file in files}

    assert present == set(listed)
    assert all(hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest for name, digest in listed.items())
    assert sum((FOLDER / name).stat().st_size for name in listed) < 10_000_000


def test_the_autoencoder_keeps_phantoms_of_the_study() -> None:
    autoencoder, phantom = KL(KL.Config(path="compact")).eval(), Phantom(Phantom.Config())
    images = torch.stack([signed(pixels_of(phantom.record(i, "train").image)) for i in range(8)])

    with torch.no_grad():
        mean, _ = autoencoder.encode(images).chunk(2, dim=1)
        error = (autoencoder.decode(mean).clamp(-1, 1) - images).square().mean((1, 2, 3))

    assert float((10 * torch.log10(4 / error)).mean()) > 30  # decibel
    assert 0.7 < float(mean.std()) < 1.3


def test_the_base_denoises_better_with_its_caption_than_with_another() -> None:
    autoencoder, embedder = KL(KL.Config(path="compact")).eval(), TfidfSVD(TfidfSVD.Config(path="compact"))
    backbone = CompactDiT(CompactDiT.Config(lora_rank=0, colour="off"), autoencoder=autoencoder, image_size=64).eval()
    phantom = Phantom(Phantom.Config())
    records = [phantom.record(i, "train") for i in range(24)]
    batch = Batch(
        [r.key for r in records], torch.arange(24), torch.stack([signed(pixels_of(r.image)) for r in records])
    )
    embedded = embedder.embed([record.caption.text for record in records])
    losses = []

    for shift in (0, 1):  # its own caption; its neighbour's
        batch.latent = backbone.encode(batch)
        torch.manual_seed(0)
        condition = pretrained_condition(embedded, shift)
        with torch.no_grad():
            losses.append(float(backbone.losses(batch, condition)["denoising"]))

    assert losses[0] < 0.97 * losses[1]


def pretrained_condition(embedded: Embedded, shift: int) -> Condition:
    """Return the captions' own tokens as a condition, moved by some places."""
    return Condition(embedded.tokens.roll(shift, 0), embedded.mask.roll(shift, 0))


def test_a_folder_that_is_not_there_is_named_with_the_way_out() -> None:
    with pytest.raises(MissingError, match=r"backbone\.path: nowhere/at/all is not here: config\.json"):
        find(pretrained.checkpoint("backbone.path", "nowhere/at/all", "transformer"))


def test_the_autoencoder_learns_colours_it_never_saw_where_it_may_go_on_learning() -> None:
    frozen, tuned = KL(KL.Config(path="compact")).eval(), KL(KL.Config(path="compact", tune=True)).train()
    level = torch.rand(8, 1, 1, 1, generator=torch.Generator().manual_seed(0)) - 0.5
    pink = (torch.tensor([0.9, -0.6, 0.5]).view(1, 3, 1, 1) + 0.3 * level).expand(8, 3, 32, 32)
    optimizer = torch.optim.AdamW(tuned.parameters(), lr=2e-3)

    def error(autoencoder: KL) -> float:
        with torch.no_grad():
            return float((autoencoder.decode(autoencoder.encode(pink).chunk(2, dim=1)[0]) - pink).abs().mean())

    assert not KL.trains(frozen.config)
    assert KL.trains(tuned.config)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    before = error(frozen)
    assert error(tuned) == before
    for _ in range(40):
        losses = tuned.losses(Batch([""] * 8, torch.arange(8), image=pink))
        optimizer.zero_grad()
        (losses["reconstruction"] + losses["gradient"] + 1e-4 * losses["kl"]).backward()
        optimizer.step()
    assert error(tuned) < 0.5 * before
    with pytest.raises(ConfigError, match="tune=true: needs weights to begin with"):
        KL.Config(tune=True)
