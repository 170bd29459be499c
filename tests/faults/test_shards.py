"""Damaged shards: refused before any work or, where that is asked for, left out whole and counted."""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from anastyle import DataError
from anastyle.data import shards
from anastyle.data.prepare import prepare, prepared
from anastyle.data.shards import LOST, Manifest
from anastyle.data.split import PreparedSet

PHANTOM = {"train": 8, "validation": 0, "test": 3, "image_size": 16}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set of eight training records in three shards and three test records in one."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_RECORDS", 3)
        prepare("phantom", PHANTOM, folder / "set")
    return folder / "set"


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """Return a copy of the set."""
    (tmp_path / "set").mkdir()
    for file in written.iterdir():
        (tmp_path / "set" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "set"


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut within a record": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut between two records": lambda path: os.truncate(path, second_record(path)),
    "no byte in it": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
    "a byte of an image flipped": lambda path: flip(path, 700),
    "a byte of a caption flipped": lambda path: flip(path, path.read_bytes().index(b'"text"') + 12),
    "another set's shard": lambda path: path.write_bytes((path.parent / "train-000000.tar").read_bytes()),
}


def second_record(path: Path) -> int:
    """Return where the second record of a tar begins."""
    with tarfile.open(path) as tar:
        first = tar.getmembers()[0].name.split(".")[0]
        return next(member.offset for member in tar.getmembers() if member.name.split(".")[0] != first)


def section(root: Path, **more: str) -> dict[str, object]:
    return {"root": str(root), "image_size": 16, **more}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_refused_at_the_start_and_named(
    root: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    damage(root / "train-000001.tar")

    with pytest.raises(DataError, match=r"train-000001\.tar: ") as caught:
        prepared(section(root), tmp_path / "out")

    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) <= 5


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_skipped_shard_is_left_out_whole_and_counted(
    written: Path, root: Path, tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    whole = PreparedSet.open(written)
    damage(root / "train-000001.tar")

    left = prepared(section(root, on_bad_shard="skip"), tmp_path / "out")

    truth, split = (one.split("train", image_size=16) for one in (whole, left))
    assert left.manifest.notes[LOST] == 3
    assert left.fingerprint != whole.fingerprint
    assert split.keys == truth.keys[:3] + truth.keys[6:]
    assert torch.equal(split.pixels(range(5)), truth.pixels([0, 1, 2, 6, 7]))
    assert split.captions == truth.captions[:3] + truth.captions[6:]
    assert "goes on without 3 records: train-000001.tar: " in caplog.text


def test_all_damaged_shards_are_named_at_once(root: Path, tmp_path: Path) -> None:
    for name in ("train-000000.tar", "train-000002.tar"):
        flip(root / name, 700)
    (root / "test-000000.tar").unlink()

    with pytest.raises(DataError, match=r"3 damaged shards(?s:.*)test-000000.*\n.*train-000000.*\n.*train-000002"):
        prepared(section(root), tmp_path / "out")


def test_a_split_of_which_nothing_is_left_is_refused_even_so(root: Path, tmp_path: Path) -> None:
    (root / "test-000000.tar").unlink()

    with pytest.raises(DataError, match="nothing is left of split test"):
        prepared(section(root, on_bad_shard="skip"), tmp_path / "out")


def test_shards_are_hashed_once_and_again_when_they_were_touched(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    honest = shards.sha256_of
    monkeypatch.setattr("anastyle.data.split.sha256_of", lambda path: hashed.append(path.name) or honest(path))

    for _ in range(2):
        prepared(section(root), tmp_path / "out")
    assert len(hashed) == len(Manifest.read(root).shards)
    os.utime(root / "train-000001.tar", (1, 1))
    prepared(section(root), tmp_path / "out")

    assert hashed[4:] == ["train-000001.tar"]


def test_what_is_remembered_of_hashing_may_be_damaged(root: Path, tmp_path: Path) -> None:
    prepared(section(root), tmp_path / "out")
    (memory,) = (tmp_path / "out" / "cache" / "hashed").glob("*.json")
    memory.write_text("{")
    flip(root / "train-000001.tar", 700)

    with pytest.raises(DataError, match="its bytes have changed"):
        prepared(section(root), tmp_path / "out")
    assert json.loads(memory.read_text())
