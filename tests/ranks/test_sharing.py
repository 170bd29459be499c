"""How ranks share out a step: alike for any number of them, every image once, or a plain refusal. No launcher."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from anastyle import Caption, ConfigError, Record
from anastyle.data.loader import batches
from anastyle.data.shards import write_shards
from anastyle.data.split import PreparedSet, Split
from anastyle.devices import together
from anastyle.statistics import Statistics
from anastyle.trainer import Settings

COUNT = 13


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """A set in three shards of 7, 5 and 1 records."""
    folder = tmp_path_factory.mktemp("set") / "set"
    records = (Record(f"r{n}", Image.new("RGB", (4, 4)), None, Caption("x"), split="train") for n in range(COUNT))
    write_shards(records, folder, info={})
    return PreparedSet.open(folder).split("train", image_size=4)


@pytest.mark.parametrize(
    ("accumulate", "devices", "part"),
    [(1, 1, (1, 8)), (4, 1, (4, 8)), (4, 2, (2, 8)), (4, 4, (1, 8)), (1, 2, (1, 4)), (1, 8, (1, 1)), (6, 4, (3, 4)),
     (2, 8, (1, 2))],
)  # fmt: skip
def test_devices_share_the_batches_of_a_step_and_cut_them_only_where_they_are_too_few(accumulate, devices, part):
    settings = Settings(batch_size=8, accumulate=accumulate)

    assert settings.shared(devices) == part
    assert part[0] * part[1] * devices == 8 * accumulate


def test_a_step_that_cannot_be_shared_out_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"(?s)1 x 6 images.*4 devices.*accumulate to a multiple of 4"):
        Settings(batch_size=6).shared(4)


@pytest.mark.parametrize("epochs", [None, 2.5])
def test_the_curve_of_the_learning_rate_does_not_know_how_many_devices_there_are(epochs):
    settings = Settings(steps=40, epochs=epochs, batch_size=4, accumulate=4, warmup=5, schedule="cosine")
    total = settings.total(200)
    alone = [settings.lr_at(step, total) for step in range(total)]

    for devices in (2, 4):
        passes, size = settings.shared(devices)
        per_device = Settings(steps=40, epochs=epochs, batch_size=size, accumulate=passes * devices, warmup=5,
                              schedule="cosine")  # fmt: skip
        assert [per_device.lr_at(step, per_device.total(200)) for step in range(per_device.total(200))] == alone


@pytest.mark.parametrize("devices", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_ranks_meet_the_same_images_in_a_step_and_every_image_once_an_epoch(split, devices, accumulate):
    settings = Settings(batch_size=16, accumulate=accumulate)
    passes, size = settings.shared(devices)
    streams = [batches(split, [], batch_size=size, seed=3, rank=rank, world_size=devices) for rank in range(devices)]
    steps = []
    for _ in range(4):
        parts = [[batch.index.tolist() for batch in islice(stream, passes)] for stream in streams]
        steps.append([row for number in range(passes) for part in parts for row in part[number]])

    alone = batches(split, [], batch_size=16, seed=3)
    assert steps == [[row for batch in islice(alone, accumulate) for row in batch.index.tolist()] for _ in range(4)]
    met = [row for step in steps for row in step]
    for start in range(0, len(met) - COUNT + 1, COUNT):
        assert sorted(met[start : start + COUNT]) == list(range(COUNT))


def test_running_statistics_do_not_know_in_which_order_batches_came():
    images = torch.randn(4, 6, 3)

    def moved(order: list[int]) -> dict[str, torch.Tensor]:
        stage = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False))
        statistics = Statistics(stage, len(order), 1)
        for _ in range(2):
            for number in order:
                stage(images[number])
                statistics.collect()
            statistics.settle()
        return stage.state_dict()

    one, other = moved([0, 1, 2, 3]), moved([3, 1, 0, 2])

    assert one["0.num_batches_tracked"] == 2
    assert not torch.equal(one["0.running_mean"], torch.zeros(3))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-6, atol=1e-7)


def test_one_batch_on_one_device_moves_statistics_as_ever():
    stage, plain = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    statistics, images = Statistics(stage, 1, 1), torch.randn(6, 3)

    for norm in (stage, plain):
        norm(images)
    statistics.collect()
    statistics.settle()

    assert torch.equal(stage.running_mean, plain.running_mean)


def test_a_block_for_all_ranks_lets_an_error_of_the_only_one_through(tmp_path: Path):
    with pytest.raises(ConfigError, match="no"), together():
        raise ConfigError("no")
