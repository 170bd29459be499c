"""Kernel distances between two clouds of features: unbiased squared maximum mean discrepancies (Gretton et al. 2012).

``kid`` has a cubic kernel and is averaged over subsets (Binkowski et al. 2018); ``cmmd`` has a Gaussian one, wide
against the unit sphere that CLIP embeddings are brought to (Jayasumana et al. 2024). In float64. The kernel between
all points is computed once, however many subsets are asked for.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from anastyle.evaluation.distances import Array, Draws, Index, clouds, drawn

Kernel = Callable[[Array, Array], Array]  # points (n, F) and (m, F) -> (n, m)
SIGMA, SCALE = 10.0, 1000.0  # of CMMD
BLOCK = 1024  # rows of a kernel computed at once


class Spread(NamedTuple):
    """A kernel distance, averaged over subsets, and its spread between them."""

    mean: float
    std: float


def kid(a: ArrayLike, b: ArrayLike, *, subsets: int = 100, subset_size: int | None = None, seed: int = 0) -> Spread:
    """Return the unbiased squared MMD with kernel (x.y / F + 1)^3, averaged over random subsets of both clouds.

    ``subset_size`` defaults to half the smaller cloud, at most 1000. The value may be slightly negative.

    Raises:
        ValueError: as ``frechet``, or a subset larger than a cloud.
    """
    a, b = clouds(a, b)
    size = subset_size or min(1000, max(2, min(len(a), len(b)) // 2))
    if not 2 <= size <= min(len(a), len(b)):
        raise ValueError(f"kid: subset_size is {size}; it must be 2 to {min(len(a), len(b))}, the smaller cloud")
    values = mmds(a, b, drawn(len(a), len(b), size, size, draws=subsets, seed=seed), cubic)
    return Spread(float(values.mean()), float(values.std()))


def cmmd(a: ArrayLike, b: ArrayLike, *, biased: bool = False) -> float:
    """Return 1000 times the squared MMD of CLIP embeddings (n, F) and (m, F) with kernel exp(-|x - y|^2 / 200).

    Embeddings are brought to unit length first. The authors' code keeps each point's kernel with itself, ``biased``;
    its values are higher by about 1000 (1 - mean kernel) (1 / n + 1 / m), which is nothing at their 30,000 images and
    much at 100. Without it the value may be slightly negative.
    """
    a, b = (on_sphere(cloud) for cloud in clouds(a, b))
    if not biased:
        return SCALE * mmd(a, b, gaussian)
    return float(SCALE * (gaussian(a, a).mean() + gaussian(b, b).mean() - 2 * gaussian(a, b).mean()))


def cmmds(a: Array, b: Array, draws: Draws) -> Array:
    """Return the CMMD between the drawn points, (draws,)."""
    return SCALE * mmds(on_sphere(a), on_sphere(b), draws, gaussian)


def kids(a: Array, b: Array, draws: Draws) -> Array:
    """Return the cubic-kernel MMD between the drawn points, (draws,)."""
    return mmds(a, b, draws, cubic)


def cubic(x: Array, y: Array) -> Array:
    """Return (x.y / F + 1)^3 of points (n, F) and (m, F), (n, m)."""
    linear = x @ y.T / x.shape[1] + 1
    return linear * linear * linear  # much faster than ** 3


def gaussian(x: Array, y: Array) -> Array:
    """Return exp(-|x - y|^2 / (2 sigma^2)) of points (n, F) and (m, F), (n, m)."""
    square = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * x @ y.T
    return np.exp(square / (-2 * SIGMA**2))


def on_sphere(points: Array) -> Array:
    """Return points (n, F) at unit length."""
    return points / np.linalg.norm(points, axis=1, keepdims=True).clip(min=1e-12)


def mmd(a: Array, b: Array, kernel: Kernel = cubic) -> float:
    """Return the unbiased squared maximum mean discrepancy of ``a`` (n, F) and ``b`` (m, F)."""
    return float(mmds(a, b, Draws(np.arange(len(a))[None], np.arange(len(b))[None]), kernel)[0])


def mmds(a: Array, b: Array, draws: Draws, kernel: Kernel) -> Array:
    """Return the unbiased squared MMD between the drawn points, (draws,)."""
    in_a, in_b = membership(draws.a, len(a)), membership(draws.b, len(b))
    between = sums(a, b, in_a, in_b, kernel) / (draws.a.shape[1] * draws.b.shape[1])
    return within(a, in_a, kernel) + within(b, in_b, kernel) - 2 * between


def within(points: Array, chosen: Array, kernel: Kernel) -> Array:
    """Return the mean kernel between different points of each subset, (draws,); ``chosen`` is (draws, n)."""
    count = chosen.sum(axis=1)
    itself = np.concatenate([np.diagonal(kernel(part, part)) for part in blocks(points)])
    return (sums(points, points, chosen, chosen, kernel) - chosen @ itself) / (count * (count - 1))


def sums(a: Array, b: Array, in_a: Array, in_b: Array, kernel: Kernel) -> Array:
    """Return the sum of the kernel over all pairs of each subset, (draws,)."""
    total = np.zeros(len(in_a))
    for rows, weights in zip(blocks(a), blocks(in_a.T), strict=True):
        total += ((weights.T @ kernel(rows, b)) * in_b).sum(axis=1)
    return total


def blocks(rows: Array) -> list[Array]:
    """Return rows in blocks that a kernel is computed for at once."""
    return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]


def membership(index: Index, count: int) -> Array:
    """Return which points each draw has, (draws, count) of 0 and 1."""
    chosen = np.zeros((len(index), count))
    np.put_along_axis(chosen, index, 1.0, axis=1)
    return chosen
