"""A diagnosis as tables: what each kind of image shows, what each code holds; Markdown to read, CSV in full."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anastyle.evaluation.bootstrap import share
from anastyle.evaluation.control.codes import FOLDS
from anastyle.evaluation.control.inventory import Held, verdict
from anastyle.evaluation.distances import Array
from anastyle.evaluation.formats import in_full, piped
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.tables import DASH
from anastyle.files import write_whole

FILES = ("diagnosis.md", "diagnosis.csv")
MOST = 4  # factors named as lost


class Number(NamedTuple):
    """A share, and its 95 % interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Shown:
    """What the judge sees in one kind of image: the mean over factors, and each factor."""

    name: str
    mean: Number
    factors: dict[str, Number]
    n: int
    hits: Array | None = None  # (factors, n), where they are known


@dataclass(frozen=True)
class Diagnosis:
    """Where a run loses its factors."""

    about: str
    factors: list[str]
    kinds: Mapping[str, Sequence[str]]
    shown: list[Shown]  # real images, then the same after the autoencoder, then what was painted
    codes: dict[str, dict[str, Held]]  # by the code's name
    notes: list[str]


def write(found: Diagnosis, folder: Path) -> str:
    """Write a diagnosis into a folder, and return its Markdown."""
    text = markdown(found)
    for name, content in zip(FILES, (text, comma_separated(found)), strict=True):
        write_whole(folder / name, content.encode())
    return text.rstrip()


def markdown(found: Diagnosis) -> str:
    """Return the tables, what follows from them, and how they were measured."""
    lines = [f"### Where accuracy is lost, %\n\n{found.about}.\n", *accuracy_table(found)]
    if found.codes:
        probed = [[percent(found.codes[code][name].accuracy) for name in found.factors] for code in found.codes]
        shares = [[percent(found.codes[code][name].variance) for name in found.factors] for code in found.codes]
        chance = ["*chance*", *(f"*{percent(held.chance)}*" for held in next(iter(found.codes.values())).values())]
        lines += ["\n### What a linear probe reads off each code, %\n", *code_table(found, probed), piped(chance)]
        lines += ["", verdict(found.codes, found.kinds)]
        lines += ["\n### How loud a factor is: its share of a code's variance, %\n", *code_table(found, shares)]
    return "\n".join([*lines, "", *(f"- {note}" for note in [*cards(found), *found.notes]), ""])


def cards(found: Diagnosis) -> list[str]:
    """Return how the numbers were measured."""
    said = [
        "Accuracy: share of images in which the judge sees what the caption says; 95 %: bootstrap of images.",
        "Lost: against the row of the autoencoder, and that against real images, on the same captions, in points; "
        f"factors whose own 95 % interval leaves out zero, the {MOST} largest; without the hits of a row, nothing.",
    ]
    if found.codes:
        said += [
            f"Probe: {FOLDS}-fold cross-validated logistic regression on the standardised code.",
            "Share of variance: between the factor's values, of all variance of the code's numbers; a short training "
            "follows what is loud.",
        ]
    return said


def accuracy_table(found: Diagnosis) -> list[str]:
    """Return what the judge sees in each kind of image."""
    heads = ["images", "n", "mean", "95 %", *found.factors, "lost"]
    lines = [piped(heads), "|---|" + "--:|" * (len(heads) - 2) + "---|"]
    for at, row in enumerate(found.shown):
        numbers = [percent(row.factors[name].value) for name in found.factors]
        against = found.shown[min(at - 1, 1)] if at else None
        mean, low, high = row.mean
        between = DASH if low is None or high is None else f"{percent(low)} to {percent(high)}"
        lines.append(piped([row.name, str(row.n), percent(mean), between, *numbers, lost(row, against, found.factors)]))
    return lines


def lost(row: Shown, against: Shown | None, factors: list[str]) -> str:
    """Return how a row differs from another on the same captions: in the mean, and which factors are surely lost."""
    if against is None or row.hits is None or against.hits is None or row.hits.shape != against.hits.shape:
        return DASH if against else ""
    difference = row.hits - against.hits
    mean = Number(*share(difference, Settings()))
    singles = {name: Number(*share(some, Settings())) for name, some in zip(factors, difference, strict=True)}
    sure = sorted((at.value, name) for name, at in singles.items() if at.high is not None and at.high < 0)
    named = ", ".join(f"{name} {points(value)}" for value, name in sure[:MOST])
    return f"{points(mean.value)} ({points(mean.low)} to {points(mean.high)})" + (f": {named}" if named else "")


def points(share: float | None) -> str:
    """Return a difference of shares in points of a hundred."""
    return DASH if share is None else f"{100 * share + 0.0:+.1f}"


def percent(share: float) -> str:
    """Return a share in per cent."""
    return DASH if np.isnan(share) else f"{100 * share:.1f}"


def code_table(found: Diagnosis, cells: list[list[str]]) -> list[str]:
    """Return a line for each code, a column for each factor."""
    heads = ["code", *found.factors]
    rows = [piped([code, *some]) for code, some in zip(found.codes, cells, strict=True)]
    return [piped(heads), "|---|" + "--:|" * len(found.factors), *rows]


def comma_separated(found: Diagnosis) -> str:
    """Return one line for each number, with every digit."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "row", "factor", "value", "low", "high", "chance", "n"])
    for row in found.shown:
        for factor, number in {"mean": row.mean, **row.factors}.items():
            writer.writerow(["accuracy", row.name, factor, *in_full(*number), "", row.n])
    for code, factors in found.codes.items():
        for factor, held in factors.items():
            accuracy = in_full(held.accuracy, held.low, held.high, held.chance)
            writer.writerow(["probe", code, factor, *accuracy, ""])
            writer.writerow(["share of variance", code, factor, *in_full(held.variance), "", "", "", ""])
    return out.getvalue()
