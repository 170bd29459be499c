"""Pretrained weights: found in a folder, in the carried one, in the hub's cache; named when they are not; fetched."""

import json
import shutil
import time
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from anastyle import DataError, MissingError
from anastyle.cli import main
from anastyle.fetch import fetch
from anastyle.weights import Checkpoint, diffusers_files, find, identity

MODEL = Checkpoint(
    "embedder.model",
    "lab/model",
    ("config.json", "model.safetensors | model.safetensors.index.json", "tokenizer.json | vocab.txt"),
    optional=("merges.txt",),
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache of the hub's."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.delenv("ANASTYLE_WEIGHTS", raising=False)
    return folder


def write_model(folder: Path, *, value: float = 1.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "vocab.txt").write_text("a")
    save_file({"weight": torch.full((3,), value)}, folder / "model.safetensors")
    return folder


def lay(folder: Path, cache: Path, name: str) -> None:
    """Lay a folder into the cache as the hub does."""
    repository = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")


@pytest.fixture
def hub(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that stands for the hub; what lies in it can be listed and downloaded."""
    remote = tmp_path / "remote"

    def listed(_api: object, name: str, revision: str | None = None) -> list[str]:
        if not (remote / name).is_dir():
            raise OSError(f"404: {name}")
        return [file.relative_to(remote / name).as_posix() for file in (remote / name).rglob("*") if file.is_file()]

    original = huggingface_hub.snapshot_download

    def download(name: str, **options: object) -> str:
        if options.get("local_files_only"):
            return original(name, **options)
        into = Path(str(options.get("local_dir") or cache / f"models--{name.replace('/', '--')}/snapshots/0123abc"))
        if not options.get("local_dir"):
            (into.parents[1] / "refs").mkdir(parents=True, exist_ok=True)
            (into.parents[1] / "refs" / "main").write_text("0123abc")
        for file in options["allow_patterns"]:
            (into / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(remote / name / file, into / file)
        return str(into)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listed)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return remote


def test_a_folder_the_carried_folder_and_the_cache_hold_the_same(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(tmp_path / "weights" / "lab" / "model")
    direct = identity(MODEL._replace(path=str(folder)))
    assert identity(MODEL) == ""

    lay(folder, cache, "lab/model")
    cached, snapshot = identity(MODEL), find(MODEL)
    monkeypatch.setenv("ANASTYLE_WEIGHTS", str(tmp_path / "weights"))

    assert find(MODEL) == folder != snapshot
    assert direct == cached == identity(MODEL) != ""


def test_another_weight_and_an_optional_file_are_another_identity(tmp_path: Path) -> None:
    first = MODEL._replace(path=str(write_model(tmp_path / "first")))
    second = MODEL._replace(path=str(write_model(tmp_path / "second", value=2.0)))
    before = identity(first)

    assert before != identity(second)
    (tmp_path / "first" / "README.md").write_text("is not read")
    assert identity(first) == before
    (tmp_path / "first" / "merges.txt").write_text("is read")
    assert identity(first) != before


def test_a_missing_model_is_named_at_once_with_its_files_and_the_way_out(cache: Path) -> None:
    start = time.process_time()
    with pytest.raises(MissingError) as caught:
        find(MODEL)

    assert time.process_time() - start < 0.5
    for word in ("lab/model", "config.json", "model.safetensors", "tokenizer.json", "anastyle fetch", "=PATH"):
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(MissingError, match=r"not here: model-00001-of-00002\.safetensors\n"):
        find(MODEL._replace(path=str(folder)))


def test_a_part_is_found_alone_and_in_a_pipeline(tmp_path: Path) -> None:
    part = Checkpoint("backbone.path", str(tmp_path), diffusers_files("transformer"))
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")

    with pytest.raises(MissingError, match=r"not here: diffusion_pytorch_model\.safetensors or transformer/"):
        find(part)
    save_file({"weight": torch.ones(1)}, tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    assert find(part) == tmp_path


def test_fetched_weights_are_found_and_fetched_once(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(hub / "lab" / "model")
    (hub / "lab" / "model" / "README.md").write_text("is left there")

    assert "fetched into" in fetch([MODEL], None)
    assert "is in" in fetch([MODEL], None)
    assert find(MODEL).name == "0123abc"
    said = fetch([MODEL], tmp_path / "weights")
    monkeypatch.setenv("ANASTYLE_WEIGHTS", str(tmp_path / "weights"))

    assert "ANASTYLE_WEIGHTS=weights" in said
    assert find(MODEL) == tmp_path / "weights" / "lab" / "model"
    assert not (tmp_path / "weights" / "lab" / "model" / "README.md").exists()


def test_old_pickles_become_safetensors_and_run_nothing(tmp_path: Path, hub: Path) -> None:
    folder = write_model(hub / "lab" / "model")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**tensors, "tied": tensors["weight"]}, folder / "pytorch_model.bin")

    fetch([MODEL], tmp_path / "weights")

    there = tmp_path / "weights" / "lab" / "model"
    assert load_file(there / "model.safetensors")["tied"].tolist() == [1, 1, 1]
    assert not (there / "pytorch_model.bin").exists()

    torch.save({**tensors, "trap": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="a pickle that holds more than tensors"):
        fetch([MODEL], tmp_path / "trapped")
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "trapped" / "lab" / "model" / "model.safetensors").exists()


def test_what_the_hub_does_not_have_is_named(hub: Path) -> None:
    with pytest.raises(MissingError, match=r"lab/model could not be downloaded: 404"):
        fetch([MODEL], None)
    write_model(hub / "lab" / "model")
    (hub / "lab" / "model" / "vocab.txt").unlink()
    with pytest.raises(MissingError, match=r"has no tokenizer\.json or vocab\.txt on the hub"):
        fetch([MODEL], None)


def test_check_and_run_name_missing_weights(cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["experiments/phantom.yaml", "embedder.path=null", "backbone.path=lab/dit", f"output={tmp_path}"]

    assert main(["check", *words]) == 3
    said = capsys.readouterr().err
    assert "backbone.path=lab/dit (config.json, diffusion_pytorch_model.safetensors)" in said
    assert "anastyle fetch experiments/phantom.yaml --to weights" in said
    assert main(["run", *words]) == 3


def test_fetch_takes_a_plugin_and_names_an_unknown_one(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(hub / "lab" / "model")

    assert main(["fetch", "bert", "model=lab/model"]) == 0
    assert "lab/model: fetched into" in capsys.readouterr().out
    assert main(["fetch", "brt"]) == 2
    assert "Did you mean 'bert'?" in capsys.readouterr().err


class Trap:
    """Touches a file when a careless reader unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return type(self.path).touch, (self.path,)
