"""Is one row ahead of another? Differences of two rows' numbers, on the same captions and seeds, with their intervals.

Rows of a study paint the same captions from the same noise, under the same seeds: much of what makes a number large or
small is common to both and falls out of their difference. Means are resampled by captions (a bootstrap), distances by
halves of the captions and of the real images (see ``half_samples``), with the same draw for both rows and all seeds.
What seeds add is the spread of the difference from seed to seed. The two variances are summed, which counts what
captions and seeds do together twice: conservative, as the pigeonhole bootstrap is (Owen 2007, The pigeonhole bootstrap,
whose variance this is but for terms of 1 / (captions x seeds) and for the seeds' being brought to its unbiased size).
Few seeds know little of their own spread: the interval is Student's, at Satterthwaite's degrees of freedom.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np

from anastyle.evaluation.bootstrap import mean
from anastyle.evaluation.distances import Array, drawn
from anastyle.evaluation.measures import FRECHET, KERNEL, Measure, key_of
from anastyle.evaluation.samples import FEATURES, REAL, Row
from anastyle.evaluation.values import alike

DRAWS, HALVES = 1000, 50  # of a mean's captions, of a distance's
AHEAD, BEHIND, NEITHER = "ahead", "behind", "not separated"
CAPTIONS = "bootstrap draws of captions"
BOTH_HALVES = "half-samples of captions and of real images"


class Difference(NamedTuple):
    """How far the first row's number lies above the second's."""

    first: str
    second: str
    key: str
    value: float
    low: float  # of the 95 % interval
    high: float
    n: int  # captions, or pairs of them
    seeds: int
    protocol: str

    @property
    def separated(self) -> bool:
        """Does the interval leave zero out?"""
        return self.low > 0 or self.high < 0

    def verdict(self, *, lower_is_better: bool) -> str:
        """Say how the first row stands to the second."""
        if not self.separated:
            return NEITHER
        return AHEAD if (self.value < 0) == lower_is_better else BEHIND


class Resampled(NamedTuple):
    """A number of one run, and what it would be on other captions."""

    value: float
    draws: Array  # (draws,)
    n: int  # captions it was measured on
    how: str


class Distance(NamedTuple):
    """A distance that can be drawn again."""

    network: str
    measure: Measure


class Paired:
    """The runs of a study, to be compared two rows at a time; what one run gives is computed once."""

    def __init__(self, rows: Iterable[Row], *, seed: int = 0) -> None:
        self.seed = seed
        self.rows = {(row.variant, row.seed): row for row in rows if row.samples}
        self._resampled: dict[tuple[str, int, str], Resampled | None] = {}

    def between(self, first: str, second: str, key: str) -> Difference | None:
        """Return the first row's number less the second's, over the seeds that both have.

        None where the two have no seed in common, the number is no mean and no distance that can be drawn again, or the
        two were measured differently.
        """
        pairs = [pair for seed in self.seeds(first, second) if (pair := self._pair(first, second, seed, key))]
        if not pairs:
            return None
        by_seed = np.asarray([one.value - other.value for one, other in pairs])
        by_caption = np.mean([one.draws - other.draws for one, other in pairs], axis=0)
        value, n = float(by_seed.mean()), pairs[0][0].n
        half = half_width(by_seed, by_caption, n)
        how = protocol(n, len(pairs), pairs[0][0].how)
        return Difference(first, second, key, value, value - half, value + half, n, len(pairs), how)

    def seeds(self, first: str, second: str) -> list[int]:
        """Return the seeds that both rows have, in their order."""
        return [seed for variant, seed in self.rows if variant == first and (second, seed) in self.rows]

    def _pair(self, first: str, second: str, seed: int, key: str) -> tuple[Resampled, Resampled] | None:
        """Return both rows' numbers under one seed, where they are of one kind."""
        mine, theirs = (self.rows[name, seed].values.get(key) for name in (first, second))
        if mine is None or theirs is None or not alike(mine, theirs):
            return None
        one, other = (self.resampled(name, seed, key) for name in (first, second))
        return (one, other) if one and other and one.n == other.n else None

    def resampled(self, variant: str, seed: int, key: str) -> Resampled | None:
        """Return a run's number on other draws of its captions."""
        at = variant, seed, key
        if at not in self._resampled:
            self._resampled[at] = self._resample(self.rows[variant, seed], key)
        return self._resampled[at]

    def _resample(self, row: Row, key: str) -> Resampled | None:
        samples = row.samples or {}
        if not np.isfinite(row.values[key].value):
            return None
        if key in samples:
            hits = np.atleast_2d(samples[key])
            how = f"{DRAWS} {CAPTIONS}"
            return Resampled(mean(hits), redrawn(hits, self.seed), hits.shape[1], how)
        asked = distance_of(key, samples)
        if asked is None:
            return None
        fake, real = samples[FEATURES + asked.network], samples[REAL + asked.network]
        n, m = len(fake), len(real)
        halves = asked.measure.resampled(fake, real, drawn(n, m, n // 2, m // 2, draws=HALVES, seed=self.seed))
        return Resampled(row.values[key].value, halves, n, f"{HALVES} {BOTH_HALVES}")


def distance_of(key: str, samples: Iterable[str]) -> Distance | None:
    """Return what a key measures on which network's features, where these are stored."""
    networks = [name.removeprefix(FEATURES) for name in samples if name.startswith(FEATURES)]
    known = [Distance(name, measure) for name in networks for measure in (FRECHET, KERNEL)]
    return next((some for some in known if key_of(some.measure.keys[0], some.network) == key), None)


def redrawn(hits: Array, seed: int) -> Array:
    """Return the mean over parts of the mean over drawn captions, (draws,), of hits (parts, n) with NaN."""
    weights, asked = drawn_weights(hits.shape[1], seed), ~np.isnan(hits)
    counts = weights @ asked.T.astype(float)  # (draws, parts)
    with np.errstate(invalid="ignore"):
        means = weights @ np.where(asked, hits, 0.0).T / counts
    return np.nanmean(means[:, asked.any(axis=1)], axis=1)


@cache
def drawn_weights(n: int, seed: int) -> Array:
    """Return how often each of ``n`` captions is drawn, (draws, n): the same for all rows and keys."""
    return np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(float)


def half_width(by_seed: Array, by_caption: Array, n: int) -> float:
    """Return half the width of the 95 % interval of a difference.

    Arguments:
        by_seed: the difference under each seed, (S,).
        by_caption: the mean difference on other captions, (draws,).
        n: captions.
    """
    from scipy.stats import t

    captions = float(np.var(by_caption, ddof=1))
    seeds = float(np.var(by_seed, ddof=1)) / len(by_seed) if len(by_seed) > 1 else 0.0
    total = captions + seeds
    if total == 0.0:
        return 0.0
    freedom = total**2 / (captions**2 / max(1, n - 1) + seeds**2 / max(1, len(by_seed) - 1))
    return float(t.ppf(0.975, freedom) * np.sqrt(total))


def protocol(n: int, seeds: int, how: str) -> str:
    """Return how a difference was measured, in words."""
    words = (
        f"Difference of two rows over {n} captions, the same in both; 95 % interval: Student's t on the variance over "
        f"captions ({how}, the same in both)"
    )
    if seeds == 1:
        return f"{words}; one seed: it says nothing of other trainings"
    return f"{words} and over the {seeds} seeds that both have, summed (conservative, as the pigeonhole bootstrap)"
