"""Distances against closed forms, and against torchmetrics with the same features."""

import numpy as np
import pytest
import torch
from torch import nn

from anastyle.evaluation.distances import floor, frechet, half_samples, interval, kid, mmd


def gaussian(n: int, mean: np.ndarray, root: np.ndarray, seed: int) -> np.ndarray:
    """Return points (n, F) whose mean and covariance are exactly those asked for."""
    points = np.random.default_rng(seed).standard_normal((n, len(mean)))
    points -= points.mean(axis=0)
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T
    return points @ whiten @ root.T + mean


class TwoNumbers(nn.Module):
    """An extractor for torchmetrics that passes features through."""

    num_features = 6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).double()


def test_frechet_is_the_closed_form_for_commuting_gaussians():
    a = gaussian(200, np.zeros(3), np.diag([1.0, 2.0, 3.0]), seed=0)
    b = gaussian(300, np.asarray([1.0, 0.0, -2.0]), np.diag([2.0, 2.0, 0.5]), seed=1)

    assert frechet(a, b) == pytest.approx(1 + 4 + (1 - 2) ** 2 + 0 + (3 - 0.5) ** 2)


def test_frechet_is_the_closed_form_in_two_dimensions_that_do_not_commute():
    first, second = np.asarray([[1.0, 0.6], [0.0, 0.8]]), np.asarray([[0.5, 0.0], [0.7, 1.1]])
    a, b = gaussian(100, np.zeros(2), first, seed=0), gaussian(100, np.zeros(2), second, seed=1)
    one, two = first @ first.T, second @ second.T
    # tr sqrt(M) of a 2 x 2 matrix is sqrt(tr M + 2 sqrt(det M))
    cross = np.sqrt(np.trace(one @ two) + 2 * np.sqrt(np.linalg.det(one @ two)))

    assert frechet(a, b) == pytest.approx(np.trace(one) + np.trace(two) - 2 * cross)


def test_frechet_of_a_cloud_with_itself_is_nothing_even_when_its_covariance_is_singular():
    few = np.random.default_rng(0).standard_normal((5, 20))

    assert frechet(few, few) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_both_distances_agree_with_torchmetrics():
    pytest.importorskip("torchmetrics")
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((80, 6)), rng.standard_normal((60, 6)) * 1.3 + 0.4
    theirs = FrechetInceptionDistance(TwoNumbers(), input_img_size=(6, 1, 1), normalize=True)
    kernel = KernelInceptionDistance(TwoNumbers(), subsets=1, subset_size=60, normalize=True)
    for metric in (theirs, kernel):
        metric.set_dtype(torch.float64)
        for points, real in ((a[:60], True), (b, False)):
            metric.update(torch.from_numpy(points)[:, :, None, None], real=real)

    assert frechet(a[:60], b) == pytest.approx(float(theirs.compute()), rel=1e-4)
    assert mmd(a[:60], b) == pytest.approx(float(kernel.compute()[0]), rel=1e-4)


def test_mmd_is_the_sum_over_pairs_that_its_name_promises():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    kernel = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    within_a = np.mean([kernel(a[i], a[j]) for i in range(4) for j in range(4) if i != j])
    within_b = np.mean([kernel(b[i], b[j]) for i in range(5) for j in range(5) if i != j])
    between = np.mean([kernel(x, y) for x in a for y in b])

    assert mmd(a, b) == pytest.approx(within_a + within_b - 2 * between)


def test_kid_of_one_distribution_scatters_around_nothing_and_sees_a_shift():
    rng = np.random.default_rng(0)
    same = [kid(*rng.standard_normal((2, 100, 8)), seed=k).mean for k in range(20)]
    far = kid(rng.standard_normal((100, 8)), rng.standard_normal((100, 8)) + 0.7)

    assert abs(np.mean(same)) < 2 * np.std(same) / np.sqrt(20) + 0.01
    assert min(same) < 0 < max(same)
    assert far.mean > 10 * max(same)
    assert far.std > 0


def test_kid_repeats_with_its_seed_and_refuses_a_subset_larger_than_the_cloud():
    a, b = np.random.default_rng(0).standard_normal((2, 30, 4))

    assert kid(a, b, seed=3) == kid(a, b, seed=3)
    assert kid(a, b, seed=3) != kid(a, b, seed=4)
    with pytest.raises(ValueError, match="subset_size is 31"):
        kid(a, b, subset_size=31)


def test_the_floor_falls_with_more_images_and_a_distance_from_elsewhere_lies_above_it():
    real = np.random.default_rng(0).standard_normal((400, 10))
    shifted = np.random.default_rng(1).standard_normal((200, 10)) + 0.6

    assert floor(real, 200) < floor(real, 50)
    assert floor(real, 10_000) == floor(real, 200)
    assert frechet(shifted, real[:200]) > 2 * floor(real, 200)


def test_half_samples_estimate_the_scatter_of_repeated_experiments():
    shift = 1.0
    repeated = [
        frechet(
            np.random.default_rng(k).standard_normal((200, 4)) + shift,
            np.random.default_rng(900 + k).standard_normal((200, 4)),
        )
        for k in range(150)
    ]
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((200, 4)) + shift, rng.standard_normal((200, 4))
    draws = half_samples(frechet, a, b, draws=150)

    assert np.std(draws) == pytest.approx(np.std(repeated), rel=0.3)
    low, high = interval(frechet(a, b), draws)
    assert low < frechet(a, b) < high
    assert low < np.mean(repeated) < high


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.zeros((5, 3)), np.zeros((5, 4)), "one width"),
        (np.zeros((1, 3)), np.zeros((5, 3)), "two points"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "not finite"),
    ],
)
def test_clouds_that_cannot_be_compared_are_refused_in_words(a, b, words):
    with pytest.raises(ValueError, match=words):
        frechet(a, b)
