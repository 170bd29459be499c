"""What a comparison found: a record for each arm and metric, the values of a report, and the rows of a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anastyle.evaluation.distances import Array
from anastyle.evaluation.tables import Row
from anastyle.evaluation.utility.arms import MAJORITY, Arm
from anastyle.evaluation.utility.intervals import Estimate, estimate
from anastyle.evaluation.values import Value

PREFIX, GAIN = "utility/", "_gain"
Predicted = NDArray[Any]  # (n, ...), of every test image
Measure = Callable[[Predicted, Array], dict[str, Array]]
"""Of one training's predictions and weightings of the test images (R, n): every metric, (R,)."""


class Result(NamedTuple):
    """One arm by one metric."""

    arm: Arm
    metric: str
    score: Estimate | None  # None where the metric is undefined
    gain: Estimate | None  # over the arm's control, training by training; None too where there is no control
    trainings: tuple[float, ...]  # the score of each seed
    reason: str = ""  # why the metric is undefined


@dataclass(frozen=True)
class Utility:
    """All arms by all metrics, and how they were measured."""

    results: list[Result] = field(default_factory=list)
    words: Mapping[str, str] = field(default_factory=dict)  # metric -> what it is
    how: str = ""
    n: int = 0  # test images
    reason: str = ""  # why nothing was compared

    def of(self, arm: str, metric: str) -> Result:
        """Return one arm's result by one metric."""
        return next(found for found in self.results if (found.arm.name, found.metric) == (arm, metric))

    def values(self) -> dict[str, Value]:
        """Return what is defined as ``utility/<arm>/<metric>``, gains as ``utility/<arm>/<metric>_gain``."""
        return {
            f"{PREFIX}{found.arm.key}/{key}": value
            for found in self.results
            for key, value in self._both(found).items()
        }

    def rows(self) -> list[Row]:
        """Return a table's rows: one an arm, its values by ``utility/<metric>`` and ``utility/<metric>_gain``."""
        rows = {found.arm.name: Row(found.arm.name, 0, {}) for found in self.results}
        for found in self.results:
            rows[found.arm.name].values.update({PREFIX + key: value for key, value in self._both(found).items()})
        return list(rows.values())

    def _both(self, found: Result) -> dict[str, Value]:
        """Return a result's score and gain, as far as they exist."""
        what, floor = self.words[found.metric], self._floor(found.metric)
        against = (
            "less that of the same seed's control, whose synthetic images are repeated real ones of the same classes"
        )
        values = {}
        if found.score is not None:
            values[found.metric] = Value(*found.score, floor=floor, n=self.n, protocol=f"{what}; {self.how}")
        if found.gain is not None:
            protocol = f"{what}, {against}; {self.how}"
            values[found.metric + GAIN] = Value(*found.gain, floor=0.0, n=self.n, protocol=protocol)
        return values

    def _floor(self, metric: str) -> float | None:
        known = [found.score for found in self.results if (found.arm.name, found.metric) == (MAJORITY, metric)]
        return known[0].value if known and known[0] else None


def compare(
    arms: Sequence[Arm],
    predicted: Mapping[str, Sequence[Predicted]],
    measure: Measure,
    resamples: Array,
    units: int,
    undefined: Mapping[str, str],
) -> list[Result]:
    """Return every arm by every metric.

    Arguments:
        predicted: an arm's predictions, one a seed, in the same order of seeds in all arms.
        resamples: weightings of the test images, (R, n).
        units: how many things were resampled.
        undefined: metric -> why it is.
    """
    weights = np.concatenate([np.ones((1, resamples.shape[1])), resamples])
    scored = {arm.name: stacked([measure(one, weights) for one in predicted[arm.name]]) for arm in arms}
    results = []
    for arm in arms:
        for metric, scores in scored[arm.name].items():
            if metric in undefined:
                results.append(Result(arm, metric, None, None, (), undefined[metric]))
                continue
            score = estimate(scores, units, (0.0, 1.0))
            gain = estimate(scores - scored[arm.control][metric], units, (-1.0, 1.0)) if arm.control else None
            results.append(Result(arm, metric, score, gain, tuple(scores[:, 0].tolist())))
    return results


def stacked(found: list[dict[str, Array]]) -> dict[str, Array]:
    """Return every metric, (S, 1 + R), of S trainings."""
    return {metric: np.stack([one[metric] for one in found]) for metric in found[0]}
