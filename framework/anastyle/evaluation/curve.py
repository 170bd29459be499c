"""``anastyle curve STUDY...``: the same rows trained for different times, one metric over the time they had.

Which row is ahead is a question of when. Intervals are Student's over seeds where a row has two or more at a budget,
else the run's own over captions; reference rows stand beside, dashed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anastyle.config import typed
from anastyle.errors import ConfigError, did_you_mean
from anastyle.evaluation.compare import references_of, runs_in
from anastyle.evaluation.curve_figure import draw
from anastyle.evaluation.formats import piped
from anastyle.evaluation.measure import values_of
from anastyle.evaluation.tables import DASH, Column, alike, column
from anastyle.evaluation.values import Value
from anastyle.painting.finished import FinishedRun
from anastyle.stages.settings import DiffuseSettings

SEEDS, CAPTIONS = "seeds", "captions"


class Budget(NamedTuple):
    """How long a row was trained; 0, where nothing of it is."""

    steps: int
    images: int  # seen


@dataclass(frozen=True)
class Measured:
    """One run's value of the metric."""

    row: str
    reference: bool
    seed: int
    budget: Budget
    value: Value
    study: Path


class Point(NamedTuple):
    """A row at one budget, over its seeds."""

    budget: Budget
    seeds: int
    mean: float
    low: float | None  # of the 95 % interval
    high: float | None
    over: str  # what the interval is over: seeds or captions


@dataclass(frozen=True)
class Line:
    """One row's points, from the shortest training to the longest."""

    row: str
    reference: bool
    points: list[Point]

    @property
    def level(self) -> bool:
        """Is nothing of it trained, so that it is the same at every budget?"""
        return all(point.budget.steps == 0 for point in self.points)


def curve(
    studies: Sequence[Path], metric: str = "factor_mean", out: Path | None = None, rows: Sequence[str] = ()
) -> str:
    """Write the figure, and its table beside it, and return the table.

    Arguments:
        rows: those to show; none named, all.

    Raises:
        ConfigError: no row in common, no such metric or row, values of different protocols, or a run twice.
        MissingError: a study has no finished run.
    """
    folders = [study.expanduser().resolve() for study in studies]
    out = out or folders[0] / "curve.png"
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--out {out}: name a .png, .svg or .pdf.")
    runs = chosen([run for folder in folders for run in runs_in(folder)], rows)
    refuse_strangers(runs)
    found = measured(runs, metric)
    refuse_other_protocols(found, metric)
    lines, shown = lines_of(found), column(metric)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(lines, shown, out)
    text = markdown(lines, shown, found[0].value.protocol, left_out(runs, found))
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    return f"{text.rstrip()}\n\nFigure: {out}"


def row_of(run: FinishedRun) -> str:
    """Name the row that a run belongs to."""
    return run.folder.parent.name


def study_of(run: FinishedRun) -> Path:
    """Return the folder of a run's study."""
    return run.folder.parents[1]


def chosen(runs: list[FinishedRun], rows: Sequence[str]) -> list[FinishedRun]:
    """Return the runs of these rows, or all where none is named.

    Raises:
        ConfigError: there is no such row.
    """
    known = dict.fromkeys(map(row_of, runs))
    for row in rows:
        if row not in known:
            raise ConfigError(f"--rows {row}: no such row.{did_you_mean(row, known)}\n  rows: {', '.join(known)}")
    return [run for run in runs if not rows or row_of(run) in rows]


def refuse_strangers(runs: list[FinishedRun]) -> None:
    """Raise ``ConfigError`` when a study shares no trained row with any other."""
    rows: dict[Path, set[str]] = {}
    for run in runs:
        if "diffuse" in run.stages:
            rows.setdefault(study_of(run), set()).add(row_of(run))
    for study, own in rows.items():
        others = set().union(*(some for other, some in rows.items() if other != study))
        if others and not own & others:
            raise ConfigError(
                f"curve: {study.name} shares no row with the other studies, so there is no curve to draw.\n"
                f"  its rows: {', '.join(sorted(own))}\n  theirs: {', '.join(sorted(others))}"
            )


def measured(runs: list[FinishedRun], metric: str) -> list[Measured]:
    """Return every run's value of the metric, of those that have it.

    Raises:
        ConfigError: no run has it, or two have one row, budget and seed.
    """
    found: dict[tuple[str, Budget, int], Measured] = {}
    known: dict[str, None] = {}
    for run in runs:
        values = values_of(run.stored("evaluate"))
        known |= dict.fromkeys(values)
        if metric not in values or not np.isfinite(values[metric].value):
            continue
        study, budget = study_of(run), budget_of(run)
        one = Measured(row_of(run), row_of(run) in references_of(study), run.seed, budget, values[metric], study)
        other = found.setdefault((one.row, budget, one.seed), one)
        if other is not one and budget.steps:
            raise ConfigError(
                f"curve: {one.row}, seed {one.seed}, {budget.steps} steps is there twice:\n  {other.study}\n  {study}\n"
                "Leave one of the studies out."
            )
    if not found:
        near = did_you_mean(metric, known)
        raise ConfigError(f"--metric {metric}: no run has it.{near}\n  known: {', '.join(known)}")
    return list(found.values())


def budget_of(run: FinishedRun) -> Budget:
    """Return how long a run's diffuse stage was trained.

    Raises:
        ConfigError: it was told in epochs, of whose steps the run's folder says nothing.
    """
    if "diffuse" not in run.stages:
        return Budget(0, 0)
    settings = typed(DiffuseSettings, run.config["stages"]["diffuse"], "stages.diffuse")
    if settings.epochs is not None:
        raise ConfigError(f"{run.name}: is trained for {settings.epochs} epochs; curve reads stages.diffuse.steps.")
    return Budget(settings.steps, settings.steps * settings.batch_size * settings.accumulate)


def refuse_other_protocols(found: list[Measured], metric: str) -> None:
    """Raise ``ConfigError`` when two values were measured in different ways, and so do not compare."""
    first = found[0]
    for other in found[1:]:
        if not alike(first.value, other.value):
            told = [f"{one.study.name}/{one.row}, seed {one.seed}: {protocol(one.value)}" for one in (first, other)]
            raise ConfigError(
                f"curve: {metric} was measured by different protocols, and such numbers do not compare.\n"
                + "\n".join(f"  {line}" for line in told)
            )


def protocol(value: Value) -> str:
    """Return how a value was measured, and its hash where it has one."""
    return f"[{value.hash}] {value.protocol}" if value.hash else value.protocol


def lines_of(found: list[Measured]) -> list[Line]:
    """Return a line for each row, references last, each in the order in which they were met."""
    rows = sorted(dict.fromkeys((one.reference, one.row) for one in found), key=lambda pair: pair[0])
    return [
        Line(row, reference, points_of([one for one in found if one.row == row and one.reference == reference]))
        for reference, row in rows
    ]


def points_of(row: list[Measured]) -> list[Point]:
    """Return a row's points in the order of their budgets."""
    budgets = sorted({one.budget for one in row}, key=lambda budget: (budget.images, budget.steps))
    return [point(budget, [one.value for one in row if one.budget == budget]) for budget in budgets]


def point(budget: Budget, values: list[Value]) -> Point:
    """Return the mean of one value a seed, with Student's 95 % interval; of one seed, with that of its captions."""
    numbers = np.array([value.value for value in values])
    if len(numbers) == 1:
        return Point(budget, 1, values[0].value, values[0].low, values[0].high, CAPTIONS)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / len(numbers) ** 0.5)
    mean = float(numbers.mean())
    return Point(budget, len(numbers), mean, mean - half, mean + half, SEEDS)


def left_out(runs: list[FinishedRun], found: list[Measured]) -> list[str]:
    """Name the rows that do not have the metric."""
    shown = {one.row for one in found}
    return [row for row in dict.fromkeys(map(row_of, runs)) if row not in shown]


def markdown(lines: list[Line], shown: Column, how: str, absent: list[str]) -> str:
    """Return the points as a table."""
    heads = ["row", "steps", "images seen", "seeds", f"{shown.title} {shown.arrow}", "low", "high", "interval over"]
    table = [piped(heads), "|---|" + "--:|" * (len(heads) - 2) + "---|"]
    for line in lines:
        for at in line.points:
            name = f"*{line.row}* (reference)" if line.reference else line.row
            time = [f"{at.budget.steps:,}", f"{at.budget.images:,}"]
            numbers = [shown.show(number) for number in (at.mean, at.low, at.high)]
            table.append(piped([name, *time, str(at.seeds), *numbers, at.over if at.low is not None else DASH]))
    notes = [f"{shown.title}: {how}.", "Intervals: 95 %, Student's over seeds; of a single seed over its captions."]
    if any(line.level for line in lines):
        notes.append("A row of no steps is as in the first study named that has it.")
    notes += [f"Left out, without this metric: {', '.join(absent)}."] if absent else []
    return "\n".join([*table, "", *(f"- {note}" for note in notes), ""])
