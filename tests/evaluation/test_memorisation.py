"""Copies of training images do not pass, whatever was done to them; new images of the same world do."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from anastyle import DATASETS, FEATURES, DataError
from anastyle.config import section
from anastyle.data.images import picture_of, pixels_of
from anastyle.evaluation.memorisation import search
from anastyle.evaluation.memorisation.bench import Bench
from anastyle.evaluation.memorisation.calibrate import FEWEST_HELD, same_picture, threshold, wilson
from anastyle.evaluation.memorisation.gate import MARGIN, gate
from anastyle.evaluation.memorisation.record import FILE, SHEET, read
from anastyle.evaluation.memorisation.sheet import SIDE

SIZE = 32
COPIED = 60


class Drawn:
    """Images as a split gives them."""

    def __init__(self, images: Tensor, name: str, groups: list[str] | None = None) -> None:
        self.images = images
        self.keys = [f"{name}-{row}" for row in range(len(images))]
        self.groups = groups or [""] * len(images)

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: Tensor, /) -> Tensor:
        return self.images[indices]


def draw(count: int, seed: int) -> Tensor:
    """Return images of the phantom set, uint8 (count, 3, SIZE, SIZE)."""
    options = {"name": "phantom", "train": count, "validation": 0, "test": 0, "image_size": SIZE, "seed": seed}
    dataset, config = section(DATASETS, options, "data")
    return torch.stack([pixels_of(record.image) for record in dataset(config).records()])


@pytest.fixture(scope="module")
def train() -> Drawn:
    return Drawn(draw(260, seed=1), "train")


@pytest.fixture(scope="module")
def held() -> Drawn:
    return Drawn(draw(150, seed=2), "held")


@pytest.fixture(scope="module")
def fresh() -> Tensor:
    return draw(120, seed=3)


@pytest.fixture(scope="module")
def bench(train: Drawn, held: Drawn) -> Bench:
    return Bench(train, held)


def noisy(images: Tensor) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return levels(images + 8 * noise)


def compressed(images: Tensor) -> Tensor:
    found = []
    for image in images:
        file = io.BytesIO()
        picture_of(image).save(file, "JPEG", quality=50)
        found.append(pixels_of(Image.open(file)))
    return torch.stack(found)


def levels(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda images: images,
    "noise": noisy,
    "jpeg": compressed,
    "shift": lambda images: torch.cat([images[..., 1:], images[..., -1:]], dim=-1),
    "mirror": lambda images: images.flip(-1),
    "brightness": lambda images: levels(0.8 * images + 30),
    "contrast": lambda images: levels(0.6 * images),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_fail_whatever_was_done_to_them(train: Drawn, held: Drawn, bench: Bench, change: str) -> None:
    found = gate(CHANGES[change](train.images[:COPIED]), train, held, bench=bench)

    rate = found.values["copy_rate"]
    assert found.verdict == "failed"
    assert rate.value > 0.95
    assert rate.low > found.limit
    assert found.copies == {"pixel": round(rate.value * COPIED)}
    assert all(pair.row == pair.generated and pair.train == f"train-{pair.row}" for pair in found.pairs if pair.copy)
    assert found.values["authenticity"].value < 0.05
    assert sum(pair.same for pair in found.pairs) > 0.9 * len(found.pairs)


def test_new_images_pass(train: Drawn, held: Drawn, bench: Bench, fresh: Tensor) -> None:
    found = gate(fresh, train, held, bench=bench)

    rate, authenticity = found.values["copy_rate"], found.values["authenticity"]
    assert found.verdict == "passed"
    assert rate.low <= rate.floor <= rate.high
    assert found.limit == pytest.approx(rate.floor + MARGIN)
    assert authenticity.low <= authenticity.floor <= authenticity.high
    assert sum(pair.same for pair in found.pairs if pair.copy) <= 1, "two drawn lesions may look the same"
    assert all(value.n == 120 and value.protocol for value in found.values.values())


def test_half_copies_are_found_to_be_half(train: Drawn, held: Drawn, bench: Bench, fresh: Tensor) -> None:
    found = gate(torch.cat([noisy(train.images[:80]), fresh[:80]]), train, held, bench=bench)

    rate = found.values["copy_rate"]
    assert found.verdict == "failed"
    assert rate.low < 0.5 < rate.high
    assert all(pair.generated < 80 for pair in found.pairs), "the worst pairs are the copies"


def test_a_margin_is_a_choice(train: Drawn, held: Drawn, bench: Bench, fresh: Tensor) -> None:
    mixed = torch.cat([train.images[:30], fresh])

    assert gate(mixed, train, held, bench=bench).verdict == "failed"
    assert gate(mixed, train, held, bench=bench, margin=0.5).verdict == "passed"


def test_too_few_held_out_images_give_no_verdict(train: Drawn, held: Drawn) -> None:
    few = Drawn(held.images[: FEWEST_HELD - 1], "held")

    found = gate(train.images[:COPIED], train, few)

    assert found.verdict == "undefined"
    assert f"{FEWEST_HELD} are needed" in found.reason
    assert set(found.values) == {"authenticity"}
    assert found.sheet is not None
    assert not any(pair.copy for pair in found.pairs)
    assert gate(train.images[:4], Drawn(train.images[:4], "train"), held).verdict == "undefined"


def test_held_out_images_that_were_trained_on_hide_nothing(train: Drawn, held: Drawn, bench: Bench) -> None:
    again = noisy(train.images[-50:])
    leaky = Drawn(torch.cat([held.images, again, again.flip(-1)]), "held")

    found = gate(CHANGES["shift"](train.images[:COPIED]), train, leaky)

    assert 95 <= found.leaked <= 105
    assert found.thresholds["pixel"] == pytest.approx(bench.thresholds["pixel"], abs=0.05)
    assert found.verdict == "failed"
    assert found.values["copy_rate"].floor < 0.02


def test_held_out_images_of_a_trained_group_do_not_calibrate(train: Drawn, held: Drawn, bench: Bench) -> None:
    patients = Drawn(train.images, "train", [f"patient-{row}" for row in range(len(train))])
    groups = [f"patient-{row}" if row < 20 else f"other-{row}" for row in range(len(held))]

    found = Bench(patients, Drawn(held.images, "held", groups))

    assert 20 <= found.leaked <= 20 + bench.leaked
    assert len(found.usual.authentic) == len(held) - found.leaked


def test_features_are_one_more_space(train: Drawn, held: Drawn, bench: Bench) -> None:
    upside_down = train.images[:COPIED].flip(-2)  # a spectrum does not see it
    network = FEATURES.get("highfreq")

    without = gate(upside_down, train, held, bench=bench)
    found = gate(upside_down, train, held, {"highfreq": network(network.Config())})

    assert without.verdict == "passed"
    assert found.verdict == "failed"
    assert found.copies["highfreq"] > 0.9 * COPIED > found.copies["pixel"]
    assert {pair.space for pair in found.pairs} == {"highfreq"}
    assert "highfreq-" in found.values["copy_rate"].protocol


def test_a_network_that_learned_sixteen_images_by_heart_fails(held: Drawn) -> None:
    learned = Drawn(draw(16, seed=5), "train")
    codes = torch.randn(16, 8)
    network = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 3 * SIZE * SIZE))
    new = torch.randn(40, 8)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    before = painted(network, new)
    for _ in range(120):
        optimizer.zero_grad()
        (network(codes) - learned.images.flatten(1) / 127.5 + 1).square().mean().backward()
        optimizer.step()
    after = painted(network, codes.repeat(3, 1) + 0.02 * torch.randn(48, 8))
    bench = Bench(learned, held)

    assert gate(before, learned, held, bench=bench).verdict == "passed"
    assert gate(after, learned, held, bench=bench).values["copy_rate"].low > 0.8


@torch.no_grad()
def painted(network: nn.Module, codes: Tensor) -> Tensor:
    return levels((network(codes) + 1) * 127.5).unflatten(1, (3, SIZE, SIZE))


def test_neighbours_do_not_depend_on_the_chunks(train: Drawn, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    images = noisy(train.images[:29])
    whole = bench.look(lambda rows: images[rows], 29).near["pixel"]

    monkeypatch.setattr(search, "CHUNK", 7)

    parts = bench.look(lambda rows: images[rows], 29).near["pixel"]
    assert parts.index.tolist() == whole.index.tolist() == list(range(29))
    torch.testing.assert_close(parts.ratio, whole.ratio, rtol=0, atol=1e-4)


def test_no_training_image_is_its_own_neighbour(train: Drawn, bench: Bench) -> None:
    rows = torch.arange(40)

    found = search.search(bench.spaces, train.pixels, rows, bench.vectors, own=True)["pixel"]

    assert not (found.index == rows).any()
    assert found.distance.min() > 0.1


def test_even_images_are_like_no_other(train: Drawn, held: Drawn, bench: Bench) -> None:
    grey = torch.full((20, 3, SIZE, SIZE), 128, dtype=torch.uint8)

    assert gate(grey, train, held, bench=bench).copies == {"pixel": 0}
    blanks = Drawn(torch.cat([train.images, grey.repeat(3, 1, 1, 1)]), "train")
    assert gate(grey, blanks, held).copies == {"pixel": 0}


def test_intervals_and_thresholds_are_the_known_ones() -> None:
    assert wilson(0, 10) == pytest.approx((0, 0, 0.27753), abs=1e-5)
    assert wilson(5, 10) == pytest.approx((0.5, 0.23659, 0.76341), abs=1e-5)
    assert wilson(10, 10) == pytest.approx((1, 0.72247, 1), abs=1e-5)
    ratios = torch.arange(1, 300) / 300
    assert threshold(ratios[:99]) == pytest.approx(1 / 300)
    assert threshold(ratios[:198]) == pytest.approx(1 / 300)
    assert threshold(ratios[:199]) == pytest.approx(2 / 300)


def test_the_audit_decides_what_is_one_picture(train: Drawn) -> None:
    one, other = train.images[:2]

    assert same_picture(one, noisy(one))
    assert same_picture(one, one.flip(-1))
    assert not same_picture(one, other)


def test_a_record_is_read_back(train: Drawn, held: Drawn, bench: Bench, tmp_path: Path) -> None:
    found = gate(train.images[:COPIED], train, held, bench=bench)
    assert read(tmp_path) is None

    found.write(tmp_path)

    assert read(tmp_path) == found
    assert json.loads((tmp_path / FILE).read_text())["verdict"] == "failed"
    with Image.open(tmp_path / SHEET) as sheet:
        left = np.asarray(sheet.crop((0, 0, SIDE, SIDE)))
    first = picture_of(train.images[found.pairs[0].generated]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    assert np.array_equal(left, np.asarray(first))
    for broken in ('{"verdict": "passed"}', (tmp_path / FILE).read_text().replace('"failed"', '"fine"')):
        (tmp_path / FILE).write_text(broken)
        with pytest.raises(DataError, match="not a record of memorisation"):
            read(tmp_path)
