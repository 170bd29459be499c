"""Synthetic images as training images: arms and controls, and that copies are worth nothing while news is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_split import FakeSplit

from anastyle import ConfigError, DataError
from anastyle.evaluation.formats import markdown
from anastyle.evaluation.tables import Row, build
from anastyle.evaluation.utility import trainings
from anastyle.evaluation.utility.arms import Pool, Synthetic, arms, duplicates, gather, training_set
from anastyle.evaluation.utility.classify import classify
from anastyle.evaluation.utility.measured import utility_tables
from anastyle.evaluation.utility.networks import ConvNet, Recipe, UNet, batches
from anastyle.evaluation.utility.results import Utility
from anastyle.evaluation.utility.segment import segment
from anastyle.evaluation.utility.trainings import UtilitySettings
from anastyle.evaluation.values import Value

CLASSES = ["a", "b", "c"]
QUICK = UtilitySettings(Recipe(steps=80, batch_size=16, lr=5e-3, width=8, ema=0.9), draws=60)
SHORT = replace(QUICK, recipe=replace(QUICK.recipe, steps=2), seeds=(0, 1), draws=20)
COLOURS = torch.cartesian_prod(*[torch.tensor([-0.7, 0.0, 0.7])] * 3)  # (27, 3)


class Tints(FakeSplit):
    """Three classes of four colours each: a dozen images show some of the colours, some hundreds show them all."""

    def __init__(self, n: int, seed: int, *, classes: int = 3, groups: list[str] | None = None) -> None:
        order = torch.randperm(27, generator=torch.Generator().manual_seed(5))
        rng = torch.Generator().manual_seed(seed)
        self.labels, self.factors = torch.arange(n) % classes, {}
        drawn = COLOURS[order[:12]].reshape(3, 4, 3)[self.labels, torch.randint(4, (n,), generator=rng)]
        drawn = drawn + 0.05 * torch.randn(n, 3, generator=rng)
        self.images = (drawn[:, :, None, None] + 0.2 * torch.randn(n, 3, 16, 16, generator=rng)).clamp(-1, 1)
        self.groups = groups or [f"lesion {row}" for row in range(n)]

    def mask(self, index, /):
        return None


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module")
def train() -> Tints:
    return Tints(12, seed=0)


@pytest.fixture(scope="module")
def test() -> Tints:
    return Tints(120, seed=1)


@pytest.fixture(scope="module")
def news(train: Tints, test: Tints, cache: Path) -> Utility:
    """Return what many fresh images of the true distribution are worth."""
    return classify(synthetic(Tints(240, seed=2)), train, test, CLASSES, settings=QUICK, cache=cache)


def synthetic(split: FakeSplit, **more) -> Synthetic:
    return Synthetic(split.bytes(), split.labels, **more)


def test_copies_of_the_training_set_are_worth_no_more_than_repeats(train, test, cache):
    copies = Synthetic(train.bytes().repeat(4, 1, 1, 1), train.labels.repeat(4))

    found = classify(copies, train, test, CLASSES, settings=QUICK, cache=cache)

    gain = found.of("real + synthetic", "weighted_f1").gain
    assert gain is not None
    assert gain.low is not None
    assert gain.low <= 0


def test_images_that_add_something_are_worth_more_than_repeats(news):
    for metric in ("weighted_f1", "balanced_accuracy", "auc"):
        gain = news.of("real + synthetic", metric).gain
        assert gain.low > 0
    assert news.of("real", "weighted_f1").score.value < 0.9 < news.of("real + synthetic", "weighted_f1").score.value


def test_chance_looks_at_no_image_and_every_number_is_beside_it(news):
    assert news.of("majority", "balanced_accuracy").score.value == pytest.approx(1 / 3)
    values = news.values()
    assert {value.floor for key, value in values.items() if key.endswith("/weighted_f1")} == {
        news.of("majority", "weighted_f1").score.value
    }
    assert all(value.low <= value.value <= value.high and value.n == 120 for value in values.values())
    assert "utility/real_synthetic/weighted_f1_gain" in values
    assert "utility/real_duplicates/weighted_f1_gain" not in values


def test_gains_are_differences_seed_by_seed(news):
    ours, control = (news.of(arm, "auc").trainings for arm in ("real + synthetic", "real + duplicates"))

    assert news.of("real + synthetic", "auc").gain.value == pytest.approx(np.mean(np.subtract(ours, control)))


def test_arms_are_the_rows_of_a_table(news):
    rows = news.rows()
    text = markdown(build(rows, ["utility/weighted_f1", "utility/weighted_f1_gain"]))

    assert [row.variant for row in rows] == ["majority", "real", "real + duplicates", "synthetic", "real + synthetic"]
    assert "12 real and 240 synthetic images at 16 px; tested on 120 real test images;" in text
    assert "80 steps of 16 in every arm" in text
    assert "†" not in text  # all arms are measured alike


def test_the_same_seeds_give_the_same_numbers_and_leave_the_callers_randomness_alone(train, test):
    more = synthetic(Tints(30, seed=2))
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)

    first, again, other = (
        classify(more, train, test, CLASSES, settings=replace(SHORT, seeds=seeds)) for seeds in ((0, 1), (0, 1), (0, 2))
    )

    assert torch.equal(torch.rand(3), expected)
    assert first == again
    assert first.of("real", "auc").trainings[0] == other.of("real", "auc").trainings[0]
    assert first.of("real", "auc").trainings[1] != other.of("real", "auc").trainings[1]


def test_systems_share_the_trainings_on_real_images(train, test, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(trainings, "trained", lambda build, pool, *_: seen.append(len(pool.labels)) or build().eval())

    for seed in (2, 3):
        classify(synthetic(Tints(30, seed=seed)), train, test, CLASSES, settings=SHORT, cache=tmp_path)

    assert seen == [12, 12, 42, 42, 30, 30, 42, 42, *(30, 30, 42, 42)]


def test_a_class_without_test_images_leaves_a_reason_not_a_number(train):
    found = classify(synthetic(Tints(30, seed=2)), train, Tints(40, seed=1, classes=2), CLASSES, settings=SHORT)

    lost = found.of("real", "balanced_accuracy")
    assert (lost.score, lost.gain, lost.reason) == (None, None, "no test image of class 'c'")
    assert found.of("real", "weighted_f1").score is not None
    assert not [key for key in found.values() if "balanced_accuracy" in key or key.endswith("recall/c")]
    assert all(np.isfinite(value.value) for value in found.values().values())


def test_one_class_is_nothing_to_tell_apart(train):
    found = classify(synthetic(Tints(30, seed=2)), train, Tints(20, seed=1, classes=1), CLASSES, settings=SHORT)

    assert (found.results, found.values(), found.reason) == ([], {}, "the test images are of one class")


def test_an_arm_and_its_control_hold_as_many_images_of_each_class():
    real, more = pool(torch.arange(20) % 3), pool(torch.tensor([0] * 15 + [1] * 5 + [2] * 2) + 0)
    found = {arm.name: arm for arm in arms((0.5, 1.0))}

    assert list(found) == [
        "real", "real + duplicates", "real + 0.5 duplicates", "synthetic", "real + synthetic", "real + 0.5 synthetic"
    ]  # fmt: skip
    for arm in (found["real + synthetic"], found["real + 0.5 synthetic"]):
        ours, control = (training_set(one, real, more, seed=3) for one in (arm, found[arm.control]))
        assert len(ours.labels) == 20 + round(22 * arm.synthetic)
        assert torch.equal(ours.labels.bincount(), control.labels.bincount())
        assert set(control.images.flatten().tolist()) <= set(real.images.flatten().tolist())
    assert len(training_set(found["synthetic"], real, more, seed=3).labels) == 22


def pool(labels: torch.Tensor) -> Pool:
    """Return images of one pixel, each of a colour of its own for these labels."""
    return Pool((labels + 10 * len(labels) % 200).to(torch.uint8)[:, None, None, None].expand(-1, 3, 1, 1), labels)


def test_repeats_are_spread_evenly_and_need_a_real_image_of_their_class():
    rng = np.random.default_rng(0)

    rows = duplicates(torch.tensor([0, 1, 0, 1, 1]), torch.tensor([0] * 5 + [1] * 4), rng)

    assert sorted(rows.bincount().tolist()) == [1, 1, 2, 2, 3]
    with pytest.raises(DataError, match="no real training image"):
        duplicates(torch.tensor([0, 1]), torch.tensor([2]), rng)


def test_test_images_that_were_asked_for_are_not_tested_on_nor_others_of_their_lesion(train):
    test = Tints(20, seed=1, groups=[f"lesion {row // 2}" for row in range(20)])
    painted = synthetic(Tints(12, seed=2))

    pools = gather(painted._replace(asked=torch.arange(12) // 2), train, test, 64, masks=False)

    assert pools.groups == [f"lesion {row // 2}" for row in range(6, 20)]
    assert torch.equal(pools.test.images, test.bytes(list(range(6, 20))))
    assert pools.left_out == 6
    with pytest.raises(DataError, match=r"8 are left to test on\. Ask for training captions"):
        gather(painted._replace(asked=torch.arange(12)), train, test, 64, masks=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": torch.zeros(3)}, "12 synthetic images and 3 of their labels"),
        ({"images": torch.zeros(12, 3, 4, 4)}, r"must be uint8 \(n, 3, S, S\)"),
        ({"images": torch.zeros(4, 3, 4, 4, dtype=torch.uint8)}, "there are 4 synthetic images; 10 is the least"),
    ],
)
def test_a_synthetic_set_that_does_not_belong_together_is_refused(train, test, change, words):
    with pytest.raises(DataError, match=words):
        classify(synthetic(Tints(12, seed=2))._replace(**change), train, test, CLASSES)


@pytest.mark.parametrize("wrong", [{"seeds": ()}, {"seeds": (1, 1)}, {"ratios": (0.0,)}, {"draws": 1}])
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ConfigError, match="utility: "):
        UtilitySettings(**wrong)


def test_batches_are_full_and_even_however_few_the_rows():
    drawn = [rows for rows, _ in zip(batches(5, 8, torch.Generator()), range(10), strict=False)]

    assert {len(rows) for rows in drawn} == {8}
    assert torch.cat(drawn).bincount().tolist() == [16] * 5


@pytest.mark.parametrize("side", [16, 24, 64, 128])
def test_every_parameter_gets_a_gradient(side):
    for network in (ConvNet(3, width=4, side=side), UNet(width=4)):
        network(torch.randn(2, 3, side, side)).square().sum().backward()

        assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_a_segmenter_learns_from_masks_and_is_misled_by_wrong_ones():
    train, test, more = (FakeSplit(n, seed=seed) for seed, n in enumerate((24, 40, 48)))
    test.masks[:3] = 0
    wrong = synthetic(more, masks=1 - more.masks)
    settings = replace(QUICK, recipe=replace(QUICK.recipe, lr=1e-2, flips="none"), seeds=(0, 1))

    found = segment(wrong, train, test, settings=settings)

    assert [row.variant for row in found.rows()] == ["majority", "real", "real + duplicates", "real + synthetic"]
    assert found.n == 37  # a mask with nothing in it has no Dice
    assert found.of("real", "dice").score.value > max(0.8, found.of("majority", "dice").score.value)
    assert found.of("real + synthetic", "dice").gain.high < 0


def test_without_masks_there_is_nothing_to_segment(train, test):
    painted = synthetic(FakeSplit(12, seed=2))

    assert segment(painted, train, test).reason == "the system paints no masks"
    assert segment(painted._replace(masks=torch.zeros(12, 1, 16, 16)), train, test).reason == (
        "some real images have no mask"
    )


def test_arms_become_tables_with_those_on_real_images_once():
    def value(number):
        return Value(number, low=number - 0.1, high=number + 0.1, n=50, protocol="as measured")

    def values(gained):
        return {
            "utility/real/weighted_f1": value(0.6),
            "utility/real_synthetic/weighted_f1": value(0.7),
            "utility/real_synthetic/weighted_f1_gain": value(gained),
            "utility/real_synthetic/recall/nv": value(0.9),
        }

    scores, recalls = utility_tables([Row("full", 1, values(0.1)), Row("concat", 1, values(0.0))])

    assert [line.name for line in scores.lines] == ["real", "full: real + synthetic", "concat: real + synthetic"]
    assert [column.title for column in scores.columns] == ["F1 weighted", "F1 weighted gained"]
    assert [cell.mean for cell in scores.lines[1].cells] == [0.7, 0.1]
    assert scores.lines[0].cells[1].mean is None
    assert "| 0.100 (0.000 to 0.200) |" in markdown(scores)
    assert [column.title for column in recalls.columns] == ["nv"]
    assert utility_tables([Row("full", 1, {})]) == []
