"""Means over images, and their intervals, by drawing the images again."""

import numpy as np

from anastyle.evaluation.distances import Array
from anastyle.evaluation.reference import Settings


def mean(hits: Array) -> float:
    """Return the mean over parts of the mean over images, hits (parts, n); a part that is all NaN is left out."""
    rows = [row[~np.isnan(row)] for row in hits]
    return float(np.mean([row.mean() for row in rows if len(row)]))


def share(hits: Array, settings: Settings, *, stream: int = 2) -> tuple[float, float | None, float | None]:
    """Return the mean of hits, or of any amounts, and its 95 % bootstrap interval over images.

    Arguments:
        hits: (n,), or (parts, n) with NaN where a part is not asked of an image.
    """
    hits = np.atleast_2d(hits)
    if not settings.draws:
        return mean(hits), None, None
    drawn = np.random.default_rng([settings.seed, stream]).integers(hits.shape[1], size=(settings.draws, hits.shape[1]))
    low, high = np.percentile([mean(hits[:, rows]) for rows in drawn], [2.5, 97.5])
    return mean(hits), float(low), float(high)
