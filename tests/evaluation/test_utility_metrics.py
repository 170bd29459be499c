"""The numbers behind a comparison: metrics against scikit-learn's, what is undefined, and how sure an interval is."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from anastyle.evaluation.utility.intervals import estimate, resamples
from anastyle.evaluation.utility.metrics import majority, scores, undefined

HAM10000 = {"akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "nv": 6705, "vasc": 142}
NAMES = ["a", "b", "c", "d"]


def test_always_answering_nevus_scores_what_the_paper_gives_for_one_system():
    found = majority(HAM10000, HAM10000)

    assert found["weighted_f1"] == pytest.approx(0.537, abs=5e-4)
    assert found["balanced_accuracy"] == pytest.approx(1 / 7)
    assert found["auc"] == 0.5
    assert {name: value for name, value in found.items() if name.startswith("recall/")} == {
        f"recall/{name}": float(name == "nv") for name in HAM10000
    }


def test_the_commonest_training_class_need_not_be_the_commonest_of_the_test():
    assert majority({"a": 9, "b": 1}, {"a": 1, "b": 3})["weighted_f1"] == pytest.approx(0.25 * 2 * 1 / (1 + 4))


@pytest.mark.parametrize("steps", [None, 4])  # scores that differ, and scores many of which are equal
def test_metrics_of_every_weighting_are_scikit_learns(steps):
    rng = np.random.default_rng(0)
    truth, weights = rng.integers(4, size=60), rng.integers(1, 4, size=(3, 60)).astype(float)
    raw = rng.random((60, 4)) + np.eye(4)[truth] * rng.random((60, 1))
    probability = raw if steps is None else np.round(raw * steps)

    found = scores(truth, probability, weights, NAMES)

    answer = probability.argmax(axis=1)
    for row, weight in enumerate(weights):
        f1 = [sklearn.f1_score(truth, answer, average=how, sample_weight=weight) for how in ("weighted", "macro")]
        areas = [sklearn.roc_auc_score(truth == k, probability[:, k], sample_weight=weight) for k in range(4)]
        recall = sklearn.recall_score(truth, answer, average=None, sample_weight=weight)
        assert [found[name][row] for name in ("weighted_f1", "macro_f1")] == pytest.approx(f1)
        assert found["balanced_accuracy"][row] == pytest.approx(
            sklearn.balanced_accuracy_score(truth, answer, sample_weight=weight)
        )
        assert found["auc"][row] == pytest.approx(np.mean(areas))
        assert [found[f"recall/{name}"][row] for name in NAMES] == pytest.approx(recall)


def test_a_class_without_test_images_undefines_just_what_needs_it():
    rng = np.random.default_rng(0)
    truth, probability = rng.choice([0, 1, 3], size=40), rng.random((40, 4))

    found = scores(truth, probability, np.ones((1, 40)), NAMES)
    reasons = undefined(np.bincount(truth, minlength=4), NAMES)

    assert {name for name, value in found.items() if np.isnan(value[0])} == set(reasons)
    assert set(reasons) == {"macro_f1", "balanced_accuracy", "auc", "recall/c"}
    assert set(reasons.values()) == {"no test image of class 'c'"}
    expected = sklearn.f1_score(truth, probability.argmax(axis=1), average="weighted", labels=range(4))
    assert found["weighted_f1"][0] == pytest.approx(expected)


def test_with_one_class_nothing_is_defined():
    assert set(undefined([7], ["a"]).values()) == {"the set has one class"}
    assert undefined([0, 7], ["a", "b"])["weighted_f1"] == "the test images are of one class"
    assert undefined([3, 7], ["a", "b"]) == {}


def test_groups_are_drawn_whole_and_classes_keep_their_count_of_groups():
    classes = np.asarray([0, 0, 0, 1, 1, 1, 1])
    groups = ["p", "p", "q", "r", "s", "s", "t"]

    times = resamples(classes, groups, 50, seed=0)

    assert (times[:, 0] == times[:, 1]).all()
    assert (times[:, 4] == times[:, 5]).all()
    assert (times[:, 0] + times[:, 2] == 2).all()
    assert (times[:, 3] + times[:, 4] + times[:, 6] == 3).all()
    assert len(np.unique(times, axis=0)) > 10


def share_excluding_zero(effect: float, training: float, image: float, *, studies: int = 200, n: int = 60) -> float:
    """Return how often the interval of a difference excludes zero: three trainings, noise of trainings and images."""
    rng = np.random.default_rng(1)
    draws = resamples(np.zeros(n, np.int64), [str(row) for row in range(n)], 60, seed=0)
    weights = np.concatenate([np.ones((1, n)), draws]) / n
    excluded = 0
    for _ in range(studies):
        noise = training * rng.normal(size=(3, 1)) + image * rng.normal(size=(1, n)) + 0.2 * rng.normal(size=(3, n))
        found = estimate((effect + noise) @ weights.T, n, (-9.0, 9.0))
        assert found.low is not None
        assert found.high is not None
        excluded += found.low > 0 or found.high < 0
    return excluded / studies


@pytest.mark.parametrize(("training", "image"), [(0.0, 0.4), (0.1, 0.2), (0.3, 0.2)])
def test_where_there_is_no_gain_an_interval_seldom_sees_one(training, image):
    assert share_excluding_zero(0.0, training, image) < 0.1


def test_where_there_is_a_gain_an_interval_sees_it():
    assert share_excluding_zero(0.3, 0.05, 0.4) > 0.9


def test_an_interval_stays_within_what_a_score_can_be_and_one_training_has_one_too():
    scores = np.asarray([[0.98, 0.9, 1.0, 0.95]])

    found = estimate(scores, 50, (0.0, 1.0))

    assert found.value == 0.98
    assert found.low is not None
    assert 0.8 < found.low < 0.98
    assert found.high == 1.0
    assert estimate(scores[:, :1], 50, (0.0, 1.0)) == (0.98, None, None)
