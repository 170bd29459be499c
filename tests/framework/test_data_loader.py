"""The order of records: complete, reproducible, and the same for any start and any number of ranks."""

from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from anastyle import Caption, DataError, Record
from anastyle.data.loader import batches, in_order
from anastyle.data.shards import write_shards
from anastyle.data.split import PreparedSet, Split

COUNT = 11


@pytest.fixture
def split(tmp_path: Path) -> Split:
    records = (Record(f"r{n}", Image.new("RGB", (4, 4)), None, Caption("x"), split="train") for n in range(COUNT))
    write_shards(records, tmp_path / "set", info={})
    return PreparedSet.open(tmp_path / "set").split("train", image_size=4)


def orders(split: Split, steps: int, **options: int) -> list[list[int]]:
    return [batch.index.tolist() for batch in islice(batches(split, [], **{"seed": 1, **options}), steps)]


@pytest.mark.parametrize("batch_size", [1, 4, 11, 30])
def test_every_record_comes_once_an_epoch(split: Split, batch_size: int) -> None:
    met = [index for batch in orders(split, 44, batch_size=batch_size) for index in batch]

    for start in range(0, len(met) - COUNT + 1, COUNT):
        assert sorted(met[start : start + COUNT]) == list(range(COUNT))


def test_epochs_and_seeds_differ(split: Split) -> None:
    first, second = orders(split, 2, batch_size=COUNT)

    assert first != second
    assert first == orders(split, 1, batch_size=COUNT)[0]
    assert first != orders(split, 1, batch_size=COUNT, seed=2)[0]


@pytest.mark.parametrize("start", [1, 2, 3, 7, 1000])
def test_a_batch_does_not_depend_on_where_one_starts(split: Split, start: int) -> None:
    straight = orders(split, start + 3, batch_size=4)[start:]

    assert orders(split, 3, batch_size=4, start_step=start) == straight


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_global_batch_of_one(split: Split, world_size: int) -> None:
    alone = orders(split, 6, batch_size=2 * world_size)
    ranks = [orders(split, 6, batch_size=2, rank=rank, world_size=world_size) for rank in range(world_size)]

    assert alone == [[i for part in parts for i in part] for parts in zip(*ranks, strict=True)]


def test_in_order_yields_everything_once(split: Split) -> None:
    assert [b.index.tolist() for b in in_order(split, [], batch_size=4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_fields_are_filled(split: Split) -> None:
    batch = next(batches(split, ["image"], batch_size=2, seed=0))

    assert batch.image is not None
    assert batch.label is None


def test_nothing_to_train_on_is_an_error(split: Split) -> None:
    with pytest.raises(DataError, match="'train' is empty"):
        batches(split.subset([]), [], batch_size=2, seed=0)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        batches(split, [], batch_size=2, seed=0, rank=2, world_size=2)
