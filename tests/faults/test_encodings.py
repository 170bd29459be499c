"""Frozen encodings on disk: a kill while they are made costs nothing, and none outlives what it was made from."""

import signal
from pathlib import Path

import pytest
import torch
from forks import Child
from safetensors.torch import load_file

from anastyle.data.cache import cached
from anastyle.data.prepare import prepared
from anastyle.experiment import read
from anastyle.parts import Parts

SMOKE = Path(__file__).parents[2] / "experiments" / "smoke.yaml"
IDENTITY = {"what": "numbers", "size": 64}


def encode(folder: Path, value: float = 1.0) -> torch.Tensor:
    return cached(folder, IDENTITY, lambda: {"latent": torch.full((50, 4), value)})["latent"]


def test_a_kill_at_any_change_of_the_disk_leaves_an_entry_whole_or_none(tmp_path: Path) -> None:
    child, log = Child(), tmp_path / "log"
    assert child.run(lambda: encode(tmp_path / "straight") is None, log) == 0
    changes = child.changes
    assert changes >= 4

    for number in range(1, changes + 1):
        folder = tmp_path / str(number)
        assert child.run(lambda folder=folder: encode(folder) is None, log, fatal=number) == -signal.SIGKILL
        finished = bool(list(folder.glob("*.json")))
        again = encode(folder, 2.0)  # another value shows whether it is made anew
        assert (again == (1.0 if finished else 2.0)).all(), number
        assert len(list(folder.glob("*.safetensors"))) == 1
        assert not list(folder.glob("*.partial"))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    run = read(SMOKE, ["only=full", "data.train=8", "data.test=4", f"output={tmp_path}"]).runs[0]
    return Parts(run.config, prepared(run.config["data"], tmp_path), seed=42, cache=tmp_path / "latents")


def latents(parts: Parts) -> torch.Tensor:
    parts.encode_latents(parts.train, torch.device("cpu"))
    latent = parts.train.batch(range(len(parts.train)), ("latent",)).latent
    assert latent is not None
    return latent


def test_other_images_and_another_autoencoder_are_other_encodings(parts: Parts, tmp_path: Path) -> None:
    first = latents(parts)
    assert torch.equal(latents(parts), first)
    with torch.no_grad():
        next(parts.autoencoder.parameters()).add_(0.01)
    second = latents(parts)
    config = {**parts.config, "data": {**parts.config["data"], "seed": 7}}
    third = latents(Parts(config, prepared(config["data"], tmp_path), seed=42, cache=tmp_path / "latents"))

    entries = [load_file(file)["latent"] for file in (tmp_path / "latents").glob("*.safetensors")]
    assert len(entries) == 3
    for latent in (first, second, third):
        assert sum(torch.equal(latent, entry) for entry in entries) == 1
