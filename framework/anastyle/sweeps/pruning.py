"""Ending a trial early: its loss is reported as it trains, and the first rank's answer stops every rank at one step.

What is compared is a term of the diffuse stage's loss, unweighted, over the steps since the last comparison. Trials
of one seed meet the same images, noise and timesteps at a step, so that little but their options sets them apart.
"""

from collections.abc import Callable
from pathlib import Path

from anastyle.devices import agreed
from anastyle.errors import Pruned
from anastyle.jsonlines import JsonLines
from anastyle.progress import Progress, Stage
from anastyle.speaker import is_main
from anastyle.sweeps.records import PRUNED

Report = Callable[[int, float], bool]
"""``report(step, loss)`` tells the storage, and says whether the trial should end."""


class Pruning(Progress):
    """The bar of a trial, which listens in on the stage that decides.

    Arguments:
        seed: whose training is compared.
        lines: where that training writes its ``metrics.jsonl``.
        term: of the loss.
        every: steps between two comparisons.
        report: None on ranks other than the first.
    """

    def __init__(
        self, total_steps: int, *, seed: int, lines: Path, term: str, every: int, report: Report | None
    ) -> None:
        super().__init__(total_steps, whole="trial")
        self.seed, self.every, self.report = seed, every, report
        self.lines, self.key = JsonLines(lines), f"train/{PRUNED}/loss/{term}"

    def stage(self, variant: str, seed: int, stage: str, steps: int, done: int = 0) -> Stage:
        """Begin a stage."""
        if stage == PRUNED and seed == self.seed:
            return _Watched(self, f"{variant}/s{seed} {stage}", steps, done)
        return super().stage(variant, seed, stage, steps, done)

    def compare(self, step: int) -> None:
        """Raise Pruned on every rank if the trial should end, by its loss up to a step."""
        lost = False
        if is_main() and self.report is not None:
            found = [line[self.key] for line, _ in self.lines.read()
                     if step - self.every < line["step"] <= step and line.get(self.key) is not None]  # fmt: skip
            lost = bool(found) and self.report(step, sum(found) / len(found))
        if agreed(lost):
            raise Pruned(f"ended at step {step}: others were better there")


class _Watched(Stage):
    """The stage whose steps are counted. A step's line is written after it was counted, so one is looked at late."""

    def advance(self, steps: int = 1, images: int = 0) -> None:
        super().advance(steps, images)
        before = self.step - 1
        progress = self._progress
        if isinstance(progress, Pruning) and before > 0 and before % progress.every == 0:
            progress.compare(before)
