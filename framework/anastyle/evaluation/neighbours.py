"""Do generated images lie among real ones, and do they reach all of them? Shares of points near others' neighbours.

Precision and recall (Kynkäänniemi et al. 2019) ask for the third nearest neighbour, density and coverage (Naeem et al.
2020) for the fifth. A real point's ball reaches to its k-th nearest real neighbour:

- precision: the share of generated points in any real point's ball
- recall: the share of real points in any generated point's ball
- density: how many real balls a generated point lies in, over k; one far real point cannot make it high
- coverage: the share of real balls that hold a generated point

Balls are closed, so that a copy of a point lies in its ball. All four depend on the number of points.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from anastyle.evaluation.distances import Array, Draws, Index, clouds

NEAR, WIDE = 3, 5  # neighbours: of precision and recall, of density and coverage
FEWEST = 4 * WIDE  # points a side, so that half of them still have neighbours to spare


class Shares(NamedTuple):
    """How generated points lie among real ones."""

    precision: float
    recall: float
    density: float
    coverage: float


class Squares(NamedTuple):
    """Squared distances within and between clouds of n generated and m real points."""

    generated: Array  # (n, n)
    real: Array  # (m, m)
    between: Array  # (m, n): real, generated


def prdc(generated: ArrayLike, real: ArrayLike) -> Shares:
    """Return precision, recall, density and coverage of features (n, F) among real ones (m, F).

    Raises:
        ValueError: as ``frechet``, or a cloud has no fifth neighbour.
    """
    generated, real = clouds(generated, real)
    if min(len(generated), len(real)) <= WIDE:
        raise ValueError(f"prdc: {WIDE} neighbours need {WIDE + 1} points a side, not {len(generated)} and {len(real)}")
    return shares(squares(generated, real))


def prdcs(generated: Array, real: Array, draws: Draws) -> Array:
    """Return precision, recall, density and coverage between the drawn points, (draws, 4)."""
    all_of = squares(generated, real)
    return np.asarray([shares(part(all_of, i, j)) for i, j in zip(*draws, strict=True)])


def part(all_of: Squares, i: Index, j: Index) -> Squares:
    """Return the distances of some generated points ``i`` and some real points ``j``."""
    return Squares(all_of.generated[np.ix_(i, i)], all_of.real[np.ix_(j, j)], all_of.between[np.ix_(j, i)])


def shares(found: Squares) -> Shares:
    """Return the four shares."""
    near, wide = radii(found.real).T  # each (m,)
    reach = radii(found.generated)[:, 0]  # (n,)
    inside = found.between <= wide[:, None]  # (m, n)
    return Shares(
        precision=float((found.between <= near[:, None]).any(axis=0).mean()),
        recall=float((found.between <= reach).any(axis=1).mean()),
        density=float(inside.sum(axis=0).mean() / WIDE),
        coverage=float(inside.any(axis=1).mean()),
    )


def radii(square: Array) -> Array:
    """Return each point's squared distance to its third and its fifth neighbour, (n, 2), of distances (n, n)."""
    return np.partition(square, (NEAR, WIDE), axis=1)[:, (NEAR, WIDE)]  # the nearest is the point itself


def squares(generated: Array, real: Array) -> Squares:
    """Return all squared distances; those that are nothing but rounding are nothing."""
    middle = real.mean(axis=0)
    generated, real = generated - middle, real - middle
    rounding = 1e-12 * max((generated**2).sum(axis=1).max(), (real**2).sum(axis=1).max())
    return Squares(*(apart(x, y, rounding) for x, y in ((generated, generated), (real, real), (real, generated))))


def apart(x: Array, y: Array, rounding: float) -> Array:
    """Return squared distances (n, m) of points (n, F) and (m, F)."""
    square = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * (x @ y.T)
    return np.where(square > rounding, square, 0.0)
