"""Records by position: words, pixels, attached encodings, views."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from anastyle import Caption, DataError, MissingError, Record
from anastyle.data import store
from anastyle.data.shards import write_shards
from anastyle.data.split import PreparedSet, Split
from anastyle.interfaces import Embedded, Factors

SIZE = 8


def record(number: int, split: str = "train", size: int = SIZE) -> Record:
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8))
    mask = None if split == "test" else Image.fromarray((rng.random((size, size)) > 0.5).astype(np.uint8) * 255)
    label = ("melanocytic_nevus", "bcc")[number % 2]
    factors = {"shape": ("oval", "round")[number % 2], **({"size": "small"} if number % 3 else {})}
    return Record(f"r{number}", image, mask, Caption(f"lesion {number}", "a", "s", label), label, "", split, factors)


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedSet:
    records = [record(n) for n in range(10)] + [record(n, "test") for n in range(10, 13)]
    write_shards(iter(records), tmp_path / "set", info={})
    return PreparedSet.open(tmp_path / "set")


@pytest.fixture
def train(prepared: PreparedSet) -> Split:
    return prepared.split("train", image_size=SIZE)


def test_a_set_says_whether_it_has_a_validation_part(prepared: PreparedSet, tmp_path: Path) -> None:
    write_shards(iter([record(1), record(2, "validation"), record(3, "test")]), tmp_path / "three", info={})

    assert not prepared.has_validation
    three = PreparedSet.open(tmp_path / "three")
    assert three.has_validation
    assert three.split("validation", image_size=SIZE).keys == ["r2"]


def test_words_come_back(train: Split) -> None:
    assert len(train) == 10
    assert train.keys[3] == "r3"
    assert train.captions[3] == Caption("lesion 3", "a", "s", "bcc")
    assert train.class_names == ["bcc", "melanocytic_nevus"]
    assert train.labels.tolist() == [1, 0] * 5
    assert train.factors["shape"].tolist() == [0, 1] * 5
    assert train.factors["size"].tolist() == [-1, 0, 0, -1, 0, 0, -1, 0, 0, -1]


def test_pixels_come_back(train: Split) -> None:
    for number in (4, 4, 0):  # once decoded, then kept
        truth = torch.from_numpy(np.array(record(number).image)).permute(2, 0, 1)
        torch.testing.assert_close(train.image(number), truth / 127.5 - 1)
        mask = record(number).mask
        assert mask is not None
        assert torch.equal(train.mask(number)[0], torch.from_numpy(np.array(mask)) / 255)


def test_any_stored_size_is_resized_on_decoding(tmp_path: Path) -> None:
    write_shards(iter([record(0, size=20), record(1, size=5)]), tmp_path / "set", info={})
    split = PreparedSet.open(tmp_path / "set").split("train", image_size=10)

    batch = split.batch([0, 1], ["image", "mask"])

    assert batch.image is not None
    assert batch.image.shape == (2, 3, 10, 10)
    assert set(batch.mask.unique().tolist()) == {0.0, 1.0}


def test_a_batch_holds_what_was_asked_and_no_more(train: Split) -> None:
    batch = train.batch([7, 2], ["label", "captions"])

    assert batch.keys == ["r7", "r2"]
    assert batch.index.tolist() == [7, 2]
    assert batch.label.tolist() == [0, 1]
    assert [caption.text for caption in batch.captions] == ["lesion 7", "lesion 2"]
    assert batch.image is batch.mask is batch.latent is batch.embedded is batch.target is None


def test_attached_encodings_follow_their_records(train: Split) -> None:
    rows = torch.arange(10.0)
    train.attach("latent", rows[:, None])
    train.attach("target", Factors(rows[:, None, None] + 100, rows[:, None, None] + 200))
    train.attach("embedded", Embedded(rows[:, None, None], torch.ones(10, 1, dtype=torch.bool), rows[:, None]))

    view = train.subset([9, 5, 1]).subset(torch.tensor([2, 0]))
    batch = view.batch([1, 0], ["latent", "target", "embedded"])

    assert batch.keys == ["r9", "r1"]
    assert batch.latent.flatten().tolist() == [9, 1]
    assert batch.target.anatomy.flatten().tolist() == [109, 101]
    assert batch.target.style.flatten().tolist() == [209, 201]
    assert batch.embedded.mask.dtype == torch.bool


def test_a_view_is_a_split_of_its_own_over_the_same_pixels(train: Split) -> None:
    view = train.subset([8, 3])
    view.attach("latent", torch.tensor([[1.0], [2.0]]))

    assert view.keys == ["r8", "r3"]
    assert torch.equal(view.image(0), train.image(8))
    assert view.labels.tolist() == [1, 0]
    assert view.batch([1], ["latent"]).latent.item() == 2.0
    with pytest.raises(ValueError, match="latent"):
        train.batch([0], ["latent"])
    assert train.subset([]).labels.dtype == torch.long


def test_what_cannot_be_attached_or_asked_is_refused(train: Split) -> None:
    with pytest.raises(ValueError, match="cannot attach 'latents'"):
        train.attach("latents", torch.zeros(10))
    with pytest.raises(ValueError, match="9"):
        train.attach("latent", torch.zeros(9, 4))
    with pytest.raises(ValueError, match="no target; it has image"):
        train.batch([0], ["image", "target"])


def test_masks_that_are_not_there_are_an_error_only_when_asked_for(prepared: PreparedSet, train: Split) -> None:
    test = prepared.split("test", image_size=SIZE)

    assert train.has_masks
    assert not test.has_masks
    assert test.mask(0) is None
    assert test.batch([0], ["image"]).mask is None
    with pytest.raises(DataError, match=r"2 records have no mask.*\n.*r10"):
        test.batch([0, 1], ["mask"])


def test_class_label_captions_name_the_class_and_nothing_else(prepared: PreparedSet) -> None:
    split = prepared.split("train", captions="class_label")

    assert split.captions[0] == Caption("a photo of melanocytic nevus", "", "", "melanocytic_nevus")


def test_unknown_splits_and_captions_are_named(prepared: PreparedSet) -> None:
    with pytest.raises(DataError, match="no split 'validation', only train, test"):
        prepared.split("validation")
    with pytest.raises(MissingError, match="Did you mean 'class_label'"):
        prepared.split("train", captions="class_labels")


def test_a_large_split_is_decoded_each_time_with_the_same_result(
    prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepared.split("train", image_size=6)
    monkeypatch.setattr(store, "KEPT_BYTES", 0)
    large = PreparedSet.open(prepared.root).split("train", image_size=6)

    assert torch.equal(large.pixels([3, 1]), small.pixels([3, 1]))
    assert torch.equal(large.masks([3, 1]), small.masks([3, 1]))
    assert not large._store.kept


def test_kept_pixels_cannot_be_changed_from_outside(train: Split) -> None:
    before = train.pixels([2]).clone()

    train.pixels([2]).zero_()

    assert torch.equal(train.pixels([2]), before)


def test_a_damaged_image_names_shard_and_record(prepared: PreparedSet) -> None:
    shard = prepared.root / "train-000000.tar"
    split = prepared.split("train", image_size=SIZE)
    at, size = split._store.records[4].image
    content = bytearray(shard.read_bytes())
    content[at + 8 : at + size] = bytes(size - 8)
    shard.write_bytes(content)

    with pytest.raises(DataError, match=r"train-000000.tar: image of record 'r4'.*Prepare the set again"):
        split.image(4)


def test_a_torch_loader_can_use_it(train: Split) -> None:
    loaded = next(iter(DataLoader(train, batch_size=4)))

    assert loaded["image"].shape == (4, 3, SIZE, SIZE)
    assert loaded["key"] == ["r0", "r1", "r2", "r3"]
