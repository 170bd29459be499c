"""Prepared sets on disk: whole, hashed, and read back as they were written."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from anastyle import Caption, DataError, MissingError, Record
from anastyle.data import shards
from anastyle.data.shards import Manifest, locate, scan, write_shards
from anastyle.data.split import PreparedSet


def record(number: int, split: str = "train", **changes: object) -> Record:
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
    mask = Image.fromarray((rng.random((8, 8)) > 0.5).astype(np.uint8) * 255)
    caption = Caption(f"lesion {number}", "round", "brown", "nv")
    made = Record(f"r{number:03d}", image, mask, caption, "nv", f"g{number}", split, {"shape": "round"})
    return made._replace(**changes)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set of seven training records in three shards, and two test records."""
    monkeypatch.setattr(shards, "SHARD_RECORDS", 3)
    records = [record(n) for n in range(7)] + [record(n, "test") for n in (7, 8)]
    write_shards(iter(records), tmp_path / "set", info={"factors": {"shape": ["oval", "round"]}})
    return tmp_path / "set"


def test_shards_are_counted_split_and_hashed(root: Path) -> None:
    manifest = Manifest.read(root)

    assert [(s.file, s.count) for s in manifest.shards] == [
        ("train-000000.tar", 3), ("train-000001.tar", 3), ("train-000002.tar", 1), ("test-000000.tar", 2),
    ]  # fmt: skip
    assert (manifest.count("train"), manifest.splits, manifest.classes) == (7, ["train", "test"], ["nv"])
    assert manifest.factors == {"shape": ["oval", "round"]}
    PreparedSet.open(root).verify()


def test_a_set_of_two_parts_is_read_as_before(root: Path) -> None:
    """Sets written before there were validation parts and links have neither in their manifest."""
    content = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    opened = PreparedSet.open(root)

    assert "links" not in content
    assert set(content) == {
        "shards", "classes", "factors", "anatomy_factors", "split_kind", "dropped", "notes", "dataset", "identity",
        "fingerprint", "version",
    }  # fmt: skip
    assert (opened.links, opened.has_validation) == ({}, False)
    assert opened.fingerprint == content["fingerprint"] == shards.fingerprint_of(opened.manifest.shards)
    with pytest.raises(DataError, match="no split 'validation', only train, test"):
        opened.split("validation")


def test_webdataset_reads_what_was_written(root: Path) -> None:
    sample = next(iter(webdataset.WebDataset(str(root / "train-000000.tar"), shardshuffle=False)))

    assert sample["__key__"] == "r000"
    assert {"image.png", "mask.png", "json"} <= set(sample)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(sample["image.png"]))), np.asarray(record(0).image))
    assert json.loads(sample["json"])["caption"] == record(0).caption._asdict()


def test_the_same_records_give_the_same_fingerprint_and_others_another(tmp_path: Path) -> None:
    prints = [
        write_shards(iter([record(n) for n in numbers]), tmp_path / name, info={}).fingerprint
        for name, numbers in (("a", (1, 2)), ("b", (1, 2)), ("c", (1, 3)))
    ]

    assert prints[0] == prints[1] != prints[2]


def test_values_met_but_not_declared_follow_the_declared(tmp_path: Path) -> None:
    records = [record(n, factors={"shape": value, "hue": "red"}) for n, value in enumerate(("square", "round", "box"))]

    manifest = write_shards(iter(records), tmp_path / "set", info={"factors": {"shape": ["round", "oval"]}})

    assert manifest.factors == {"shape": ["round", "oval", "box", "square"], "hue": ["red"]}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (record(1), "come more than once.*\n.*r001"),
        (record(2, key="../evil"), "letters, digits"),
        (record(2, key="a.b"), "letters, digits"),
        (record(2, split="../x"), "lower-case word"),
        (record(2, mask=Image.new("L", (4, 4))), "differ in size"),
        (record(2, caption=Caption(" ")), "no caption"),
    ],
)
def test_a_record_that_cannot_be_stored_leaves_nothing_behind(tmp_path: Path, bad: Record, words: str) -> None:
    with pytest.raises(DataError, match=words):
        write_shards(iter([record(1), bad]), tmp_path / "set", info={})

    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Record]:
        yield record(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(interrupted(), tmp_path / "set", info={})

    assert list(tmp_path.iterdir()) == []


def test_no_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        write_shards(iter([]), tmp_path / "set", info={})


def test_the_index_agrees_with_the_shard_and_is_rebuilt_when_it_does_not_fit(root: Path) -> None:
    shard = Manifest.read(root).shards[0]
    truth = scan(root / shard.file)
    assert locate(root, shard) == truth

    for content in ("", "[]", json.dumps({"sha256": "other", "at": {}}), json.dumps({"sha256": shard.sha256})):
        (root / f"{shard.file}.index.json").write_text(content)
        assert locate(root, shard) == truth


@pytest.mark.parametrize("name", ["../evil.json", "/abs/evil.json", "a.pyd", "a.image.pth"])
def test_a_shard_with_foreign_members_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())

    with pytest.raises(DataError, match="does not belong"):
        scan(tmp_path / "x.tar")


def test_a_shard_with_links_or_half_records_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        link = tarfile.TarInfo("a.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with tarfile.open(tmp_path / "half.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.json"), io.BytesIO())

    with pytest.raises(DataError, match="does not belong"):
        scan(tmp_path / "link.tar")
    with pytest.raises(DataError, match="incomplete records a"):
        scan(tmp_path / "half.tar")


def test_missing_and_cut_shards_are_named_together(root: Path) -> None:
    (root / "test-000000.tar").unlink()
    cut = root / "train-000001.tar"
    cut.write_bytes(cut.read_bytes()[:-600])

    with pytest.raises(DataError) as caught:
        PreparedSet.open(root)

    assert "train-000001.tar: " in str(caught.value)
    assert "test-000000.tar: missing" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


def test_verify_finds_a_flipped_byte(root: Path) -> None:
    shard = root / "train-000002.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    prepared = PreparedSet.open(root)

    with pytest.raises(DataError, match=r"train-000002.tar: its bytes have changed"):
        prepared.verify()


def test_what_is_not_a_prepared_set_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="anastyle prepare") as caught:
        PreparedSet.open(tmp_path / "nowhere")
    assert caught.value.exit_code == 3

    with pytest.raises(DataError, match=r"no manifest\.json.*\n.*anastyle prepare folder"):
        PreparedSet.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content | {"version": 99}, "version 99"),
        (lambda content: content | {"surprise": 1}, "not a manifest"),
        (lambda content: content | {"shards": [content["shards"][0] | {"file": "../x.tar"}]}, "outside its folder"),
        (lambda content: {}, "not a manifest"),
    ],
)
def test_a_foreign_manifest_is_refused(root: Path, change, words: str) -> None:
    path = root / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))

    with pytest.raises(DataError, match=words):
        PreparedSet.open(root)
