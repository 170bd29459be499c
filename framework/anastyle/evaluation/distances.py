"""Distances between two clouds of features: how far generated images are from real ones.

Fréchet distance (Heusel et al. 2017) and kernel distance (Binkowski et al. 2018), in float64, on any features. A
Fréchet distance between finite samples is above zero even when both come from one distribution: ``floor`` says by how
much, and belongs beside every value.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array, Array], float]


class Kernel(NamedTuple):
    """A kernel distance, averaged over subsets, and its spread between them."""

    mean: float
    std: float


def frechet(a: ArrayLike, b: ArrayLike) -> float:
    """Return the Fréchet distance of Gaussians fitted to features ``a`` (n, F) and ``b`` (m, F).

    |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2). The square roots come from symmetric eigendecompositions,
    which need no complex arithmetic and stay exact when a covariance is singular (n <= F).

    Raises:
        ValueError: the widths differ, a cloud has fewer than two points, or a feature is not finite.
    """
    a, b = clouds(a, b)
    mean_a, root = a.mean(axis=0), square_root(np.cov(a, rowvar=False, ddof=1))
    mean_b, other = b.mean(axis=0), np.atleast_2d(np.cov(b, rowvar=False, ddof=1))
    cross = np.linalg.eigvalsh(symmetric(root @ other @ root))
    spread = np.sum(root * root) + np.trace(other) - 2 * np.sqrt(np.clip(cross, 0, None)).sum()
    return float(max(0.0, np.sum((mean_a - mean_b) ** 2) + spread))


def kid(a: ArrayLike, b: ArrayLike, *, subsets: int = 50, subset_size: int | None = None, seed: int = 0) -> Kernel:
    """Return the unbiased squared MMD with kernel (x.y / F + 1)^3, averaged over random subsets of both clouds.

    ``subset_size`` defaults to half the smaller cloud, at most 1000. The value may be slightly negative.

    Raises:
        ValueError: as ``frechet``, or a subset larger than a cloud.
    """
    a, b = clouds(a, b)
    size = subset_size or min(1000, max(2, min(len(a), len(b)) // 2))
    if not 2 <= size <= min(len(a), len(b)):
        raise ValueError(f"kid: subset_size is {size}; it must be 2 to {min(len(a), len(b))}, the smaller cloud")
    rng = np.random.default_rng(seed)
    values = [mmd(subset(a, size, rng), subset(b, size, rng)) for _ in range(subsets)]
    return Kernel(float(np.mean(values)), float(np.std(values)))


def mmd(a: Array, b: Array) -> float:
    """Return the unbiased squared maximum mean discrepancy of ``a`` (n, F) and ``b`` (m, F), cubic kernel."""
    n, m, width = len(a), len(b), a.shape[1]
    linear = (x @ y.T / width + 1 for x, y in ((a, a), (b, b), (a, b)))
    aa, bb, ab = (k * k * k for k in linear)  # much faster than k ** 3
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * ab.mean())


def floor(real: ArrayLike, n: int, *, distance: Statistic = frechet, splits: int = 8, seed: int = 0) -> float:
    """Return the distance of real features (m, F) from themselves: ``n`` against others, disjoint, mean over splits.

    ``n`` is cut to half of what there is.
    """
    real = np.asarray(real, np.float64)
    count = min(n, len(real) // 2)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(real)) for _ in range(splits)]
    return float(np.mean([distance(real[order[:count]], real[order[count : 2 * count]]) for order in orders]))


def half_samples(distance: Statistic, a: ArrayLike, b: ArrayLike, *, draws: int = 200, seed: int = 0) -> Array:
    """Return the distance between random halves of ``a`` (n, F) and ``b`` (m, F), ``draws`` times.

    Halves are drawn without replacement. The usual bootstrap repeats points, which biases both distances upwards;
    the spread over halves estimates the same sampling error (the delete-half jackknife) without repeats.
    """
    a, b = clouds(a, b)
    rng = np.random.default_rng(seed)
    half_a, half_b = max(2, len(a) // 2), max(2, len(b) // 2)
    return np.asarray([distance(subset(a, half_a, rng), subset(b, half_b, rng)) for _ in range(draws)])


def subset(points: Array, count: int, rng: np.random.Generator) -> Array:
    """Return some of the points, drawn without replacement."""
    return points[rng.choice(len(points), count, replace=False)]


def interval(value: float, draws: Array, *, level: float = 0.95) -> tuple[float, float]:
    """Return the interval around ``value`` that has the spread of ``draws``, whose own bias is taken out."""
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(draws - np.mean(draws), [tail, 100 - tail])
    return float(value + low), float(value + high)


def clouds(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Return both feature clouds in float64, or say what is wrong with them."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features must be (n, F) and (m, F) of one width; they are {a.shape} and {b.shape}")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a distance needs two points on each side; there are {len(a)} and {len(b)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features are not finite: the network that made them diverged, or an image holds NaN")
    return a, b


def square_root(matrix: ArrayLike) -> Array:
    """Return the symmetric square root of a positive semidefinite matrix (F, F)."""
    values, vectors = np.linalg.eigh(symmetric(np.atleast_2d(matrix)))
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def symmetric(matrix: ArrayLike) -> Array:
    """Remove the rounding that makes a symmetric matrix not quite so."""
    matrix = np.asarray(matrix, np.float64)
    return (matrix + matrix.T) / 2
