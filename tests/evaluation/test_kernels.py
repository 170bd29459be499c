"""Kernel distances against sums over pairs, against torchmetrics, and against what their names promise."""

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.image.kid import KernelInceptionDistance

from anastyle.evaluation import kernels
from anastyle.evaluation.distances import drawn
from anastyle.evaluation.kernels import cmmd, cmmds, kid, kids, mmd


class Through(nn.Module):
    """An extractor for torchmetrics that passes features through."""

    num_features = 6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).double()


def by_pairs(a: np.ndarray, b: np.ndarray, kernel) -> float:
    """The unbiased estimate, one pair of points after the other."""
    within_a = np.mean([kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    within_b = np.mean([kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    return float(within_a + within_b - 2 * np.mean([kernel(x, y) for x in a for y in b]))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_kid_agrees_with_torchmetrics_on_the_same_features():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((60, 6)), rng.standard_normal((60, 6)) * 1.3 + 0.4
    theirs = KernelInceptionDistance(Through(), subsets=1, subset_size=60, normalize=True)
    theirs.set_dtype(torch.float64)
    for points, real in ((a, True), (b, False)):
        theirs.update(torch.from_numpy(points)[:, :, None, None], real=real)

    assert kid(a, b, subset_size=60, subsets=2).mean == pytest.approx(float(theirs.compute()[0]), rel=1e-3)


def test_both_kernels_are_the_sums_over_pairs_that_their_names_promise():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))

    def gauss(x, y):
        return np.exp(-np.sum((unit(x) - unit(y)) ** 2) / (2 * 10**2))

    assert mmd(a, b) == pytest.approx(by_pairs(a, b, lambda x, y: (x @ y / 3 + 1) ** 3))
    assert cmmd(a, b) == pytest.approx(1000 * by_pairs(a, b, gauss))
    published = [np.mean([gauss(x, y) for x in one for y in other]) for one, other in ((a, a), (b, b), (a, b))]
    assert cmmd(a, b, biased=True) == pytest.approx(1000 * (published[0] + published[1] - 2 * published[2]))


def test_the_biased_cmmd_is_above_the_unbiased_by_what_is_said():
    rng = np.random.default_rng(0)
    a, b = unit(rng.standard_normal((100, 16)) + 1), unit(rng.standard_normal((50, 16)) + 1)
    mean = np.mean([np.exp(-((x - y) ** 2).sum() / 200) for x in a[:40] for y in b])

    assert cmmd(a, b, biased=True) - cmmd(a, b) == pytest.approx(1000 * (1 - mean) * (1 / 100 + 1 / 50), rel=0.05)


def test_drawn_points_give_what_they_give_alone_however_the_kernel_is_cut(monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", 7)
    a, b = np.random.default_rng(0).standard_normal((2, 30, 4)) + 1
    b = b[:23]
    draws = drawn(30, 23, 12, 9, draws=4, seed=1)
    pairs = [(a[i], b[j]) for i, j in zip(*draws, strict=True)]

    assert kids(a, b, draws) == pytest.approx([by_pairs(*pair, lambda x, y: (x @ y / 4 + 1) ** 3) for pair in pairs])
    assert cmmds(a, b, draws) == pytest.approx([cmmd(*pair) for pair in pairs])


def test_kid_of_one_distribution_scatters_around_nothing_and_sees_a_shift():
    rng = np.random.default_rng(0)
    same = [kid(*rng.standard_normal((2, 100, 8)), seed=k).mean for k in range(20)]
    far = kid(rng.standard_normal((100, 8)), rng.standard_normal((100, 8)) + 0.7)

    assert abs(np.mean(same)) < 2 * np.std(same) / np.sqrt(20) + 0.01
    assert min(same) < 0 < max(same)
    assert far.mean > 10 * max(same)
    assert far.std > 0


def test_cmmd_sees_another_direction_and_not_another_length():
    a, b = np.random.default_rng(0).standard_normal((2, 100, 8)) + 2

    assert cmmd(3 * a, b) == pytest.approx(cmmd(a, b))
    assert cmmd(a * [1, 1, 1, 1, 1, 1, 1, -1], b) > 20 * abs(cmmd(a, b))


def test_kid_repeats_with_its_seed_and_refuses_a_subset_larger_than_the_cloud():
    a, b = np.random.default_rng(0).standard_normal((2, 30, 4))

    assert kid(a, b, seed=3) == kid(a, b, seed=3)
    assert kid(a, b, seed=3) != kid(a, b, seed=4)
    with pytest.raises(ValueError, match="subset_size is 31"):
        kid(a, b, subset_size=31)
