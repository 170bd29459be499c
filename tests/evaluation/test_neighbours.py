"""Precision, recall, density and coverage: their definitions one point after the other, and what moves which."""

import numpy as np
import pytest

from anastyle.evaluation.distances import drawn, half_samples
from anastyle.evaluation.neighbours import Shares, prdc, prdcs

MODES = np.asarray([[0, 0], [20, 0], [0, 20], [20, 20]])


def modes(n: int, which: list[int], seed: int) -> np.ndarray:
    """Draw points around some of four places far apart."""
    rng = np.random.default_rng(seed)
    return MODES[rng.choice(which, n)] + rng.standard_normal((n, 2))


def by_definition(generated: np.ndarray, real: np.ndarray) -> Shares:
    """The four shares, one point after the other."""
    apart = lambda x, points: np.linalg.norm(points - x, axis=1)  # noqa: E731
    reach = lambda x, points, k: np.sort(apart(x, points))[k]  # the nearest is itself  # noqa: E731
    near, wide = ([reach(x, real, k) for x in real] for k in (3, 5))
    fake = [reach(x, generated, 3) for x in generated]
    within = np.asarray([apart(x, real) <= wide for x in generated])  # (n, m)
    return Shares(
        np.mean([(apart(x, real) <= near).any() for x in generated]),
        np.mean([(apart(x, generated) <= fake).any() for x in real]),
        within.sum() / 5 / len(generated),
        within.any(axis=0).mean(),
    )


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    return modes(200, [0, 1, 2, 3], seed=0)


def test_the_shares_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    generated, real = rng.standard_normal((40, 3)) * 0.8 + 0.5, rng.standard_normal((50, 3))

    assert prdc(generated, real) == pytest.approx(by_definition(generated, real))


def test_drawn_points_give_what_they_give_alone():
    generated, real = np.random.default_rng(0).standard_normal((2, 30, 4))
    draws = drawn(30, 30, 12, 15, draws=3, seed=0)

    alone = [prdc(generated[i], real[j]) for i, j in zip(*draws, strict=True)]

    assert prdcs(generated, real, draws) == pytest.approx(np.asarray(alone))


def test_more_of_the_same_lies_among_the_real_and_reaches_all_of_them(real):
    found = prdc(modes(200, [0, 1, 2, 3], seed=1), real)

    assert found.precision > 0.85
    assert found.recall > 0.85
    assert found.density == pytest.approx(1, abs=0.25)
    assert found.coverage > 0.9


def test_dropped_modes_lower_recall_and_coverage_and_not_precision(real):
    whole, half = prdc(modes(200, [0, 1, 2, 3], seed=1), real), prdc(modes(200, [0, 1], seed=1), real)

    assert half.recall < 0.6 * whole.recall
    assert half.coverage < 0.6 * whole.coverage
    assert half.precision > 0.95 * whole.precision


def test_points_where_nothing_real_lies_lower_precision_and_density_and_not_recall(real):
    good = modes(200, [0, 1, 2, 3], seed=1)
    strayed = np.concatenate([good[:100], np.random.default_rng(2).uniform((40, -60), (160, 60), (100, 2))])
    before, after = prdc(good, real), prdc(strayed, real)

    assert after.precision < 0.6 * before.precision
    assert after.density < 0.6 * before.density
    assert after.recall > 0.85 * before.recall


def test_one_far_real_point_makes_precision_high_and_not_density():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.standard_normal((100, 2)), [[40.0, 0.0]]])
    fake = rng.uniform(15, 35, (100, 1)) * [1, 0] + rng.standard_normal((100, 2))

    found = prdc(fake, real)

    assert found.precision > 0.9  # all lie in the ball of the outlier
    assert found.density < 0.3


def test_copies_of_the_real_points_reach_everything(real):
    few, doubled = real[:50], np.repeat(real[:50], 8, axis=0)  # with radii of nothing

    assert prdc(few, few) == pytest.approx(Shares(1, 1, 1.2, 1), abs=0.01)  # a ball holds its centre and five more
    assert prdc(few, doubled).precision == 1


def test_large_offsets_are_not_lost_to_rounding(real):
    generated = modes(150, [0, 1, 2, 3], seed=3)

    assert prdc(generated + 1e6, real + 1e6) == pytest.approx(prdc(generated, real), abs=0.01)


def test_half_samples_estimate_the_scatter_of_repeated_experiments():
    def pair(seed):
        rng = np.random.default_rng(seed)
        return rng.standard_normal((100, 4)) + 0.6, rng.standard_normal((100, 4))

    repeated = np.std([prdc(*pair(seed)) for seed in range(60)], axis=0)
    halves = np.mean([half_samples(prdcs, *pair(seed), draws=60).std(axis=0) for seed in range(4)], axis=0)

    assert (halves > 0.6 * repeated).all()
    assert (halves < 1.7 * repeated).all()


def test_too_few_points_for_a_fifth_neighbour_are_refused():
    with pytest.raises(ValueError, match="5 neighbours need 6 points a side, not 5 and 20"):
        prdc(np.zeros((5, 2)), np.zeros((20, 2)))
