"""Fréchet distance between two clouds of features, and the resampling that gives every distance its interval.

Heusel et al. 2017, in float64, on any features. A Fréchet distance between finite samples is above zero even when both
come from one distribution; the distance of real images from other real ones, its floor, says by how much.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class Draws(NamedTuple):
    """Some of the points of two clouds, drawn several times."""

    a: Index  # (draws, k) rows of the first cloud
    b: Index  # (draws, l) rows of the second


Resampled = Callable[[Array, Array, Draws], Array]
"""A distance between the drawn points of two clouds, (draws,): what all draws share is computed once."""


def frechet(a: ArrayLike, b: ArrayLike) -> float:
    """Return the Fréchet distance of Gaussians fitted to features ``a`` (n, F) and ``b`` (m, F).

    |mean_a - mean_b|^2 + tr(A + B) - 2 tr (A^1/2 B A^1/2)^1/2. No square root of a product of matrices is taken: the
    last trace is the sum of the singular values of the centred points' products, for which there are two ways (see
    ``overlap``), both exact when a covariance is singular (n <= F).

    Raises:
        ValueError: the widths differ, a cloud has fewer than two points, or a feature is not finite.
    """
    a, b = clouds(a, b)
    return between(a, b, None)


def frechets(a: Array, b: Array, draws: Draws) -> Array:
    """Return the Fréchet distance between the drawn points, (draws,)."""
    a, b = a - a.mean(axis=0), b - a.mean(axis=0)  # the same distance, with less to lose by rounding
    products = a @ b.T if few(draws.a.shape[1], draws.b.shape[1], a.shape[1]) else None
    return np.asarray(
        [between(a[i], b[j], None if products is None else products[np.ix_(i, j)]) for i, j in zip(*draws, strict=True)]
    )


def between(a: Array, b: Array, products: Array | None) -> float:
    """Return the Fréchet distance of ``a`` (n, F) and ``b`` (m, F); ``products`` is a b^T (n, m), where it is known."""
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    centred_a, centred_b = a - mean_a, b - mean_b
    spread = np.sum(centred_a**2) / (len(a) - 1) + np.sum(centred_b**2) / (len(b) - 1)
    distance = np.sum((mean_a - mean_b) ** 2) + spread - 2 * overlap(centred_a, centred_b, products)
    return float(max(0.0, distance))


def overlap(a: Array, b: Array, products: Array | None) -> float:
    """Return tr (A^1/2 B A^1/2)^1/2 for the covariances of centred points ``a`` (n, F) and ``b`` (m, F).

    It is the sum of the singular values of a b^T / sqrt((n - 1) (m - 1)), and of the roots of the eigenvalues of
    A^1/2 B A^1/2: the first is the smaller matrix where there are few points, the second where there are many.
    """
    n, m, width = len(a), len(b), a.shape[1]
    if few(n, m, width):
        products = a @ b.T if products is None else centred(products)
        short = products if n <= m else products.T
        values = np.linalg.eigvalsh(short @ short.T)
        return float(np.sqrt(np.clip(values, 0, None)).sum() / np.sqrt((n - 1) * (m - 1)))
    root = square_root(a.T @ a / (n - 1))
    return float(np.sqrt(np.clip(np.linalg.eigvalsh(symmetric(root @ (b.T @ b / (m - 1)) @ root)), 0, None)).sum())


def few(n: int, m: int, width: int) -> bool:
    """Say whether there are so few points for their width that products of points are the smaller matrix."""
    return min(n, m) < 2 * width


def centred(products: Array) -> Array:
    """Return the products of centred points, of products (n, m) of points as they lie."""
    rows, columns = products.mean(axis=1, keepdims=True), products.mean(axis=0, keepdims=True)
    return products - rows - columns + products.mean()


def half_samples(distance: Resampled, a: ArrayLike, b: ArrayLike, *, draws: int = 200, seed: int = 0) -> Array:
    """Return the distance between random halves of ``a`` (n, F) and ``b`` (m, F), ``draws`` times.

    Halves are drawn without replacement. The usual bootstrap repeats points, which biases these distances upwards, and
    makes a point its own neighbour; the spread over halves estimates the same sampling error (the delete-half
    jackknife) without repeats.
    """
    a, b = clouds(a, b)
    return distance(a, b, drawn(len(a), len(b), max(2, len(a) // 2), max(2, len(b) // 2), draws=draws, seed=seed))


def drawn(n: int, m: int, k: int, l: int, *, draws: int, seed: int) -> Draws:  # noqa: E741
    """Draw ``k`` of ``n`` and ``l`` of ``m`` points without replacement, ``draws`` times."""
    rng = np.random.default_rng(seed)
    pairs = [(rng.choice(n, k, replace=False), rng.choice(m, l, replace=False)) for _ in range(draws)]
    return Draws(np.stack([one for one, _ in pairs]), np.stack([other for _, other in pairs]))


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


def square_root(matrix: Array) -> Array:
    """Return the symmetric square root of a positive semidefinite matrix (F, F)."""
    values, vectors = np.linalg.eigh(symmetric(matrix))
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def symmetric(matrix: Array) -> Array:
    """Remove the rounding that makes a symmetric matrix not quite so."""
    return (matrix + matrix.T) / 2
