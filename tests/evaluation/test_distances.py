"""The Fréchet distance against closed forms and torchmetrics, and the interval every distance is given."""

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from anastyle.evaluation.distances import drawn, frechet, frechets, half_samples, interval


def gaussian(n: int, mean: np.ndarray, root: np.ndarray, seed: int) -> np.ndarray:
    """Return points (n, F) whose mean and covariance are exactly those asked for."""
    points = np.random.default_rng(seed).standard_normal((n, len(mean)))
    points -= points.mean(axis=0)
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T
    return points @ whiten @ root.T + mean


class Through(nn.Module):
    """An extractor for torchmetrics that passes features through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

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


@pytest.mark.parametrize("width", [3, 20, 300])
def test_frechet_agrees_with_torchmetrics_on_the_same_features(width):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((40, width)), rng.standard_normal((60, width)) * 1.3 + 0.4
    theirs = FrechetInceptionDistance(Through(width), input_img_size=(width, 1, 1), normalize=True)
    theirs.set_dtype(torch.float64)
    for points, real in ((a, True), (b, False)):
        theirs.update(torch.from_numpy(points)[:, :, None, None], real=real)

    assert frechet(a, b) == pytest.approx(float(theirs.compute()), rel=1e-3)


def test_frechet_is_the_same_whichever_way_its_last_term_is_computed(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((30, 12)) + 5, 1.4 * rng.standard_normal((25, 12)) + 6
    draws = drawn(30, 25, 15, 12, draws=3, seed=0)
    found = []
    for few in (True, False):
        monkeypatch.setattr("anastyle.evaluation.distances.few", lambda *_, few=few: few)
        found.append([frechet(a, b), *frechets(a, b, draws)])

    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert found[0][1:] == pytest.approx([frechet(a[i], b[j]) for i, j in zip(*draws, strict=True)], rel=1e-6)


def test_a_shift_moves_frechet_by_its_square():
    a, b = np.random.default_rng(0).standard_normal((2, 500, 5))

    assert frechet(a + np.eye(5)[0] * 2, b) - frechet(a, b) == pytest.approx(4, abs=0.5)


def test_the_distance_of_one_distribution_from_itself_falls_with_more_points():
    few, many = (frechet(*np.random.default_rng(0).standard_normal((2, n, 10))) for n in (50, 200))

    assert 0 < many < 0.5 * few


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
    draws = half_samples(frechets, a, b, draws=150)

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
