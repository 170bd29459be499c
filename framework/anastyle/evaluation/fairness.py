"""On what terms the rows of a study are compared: what each trains, sees, reads and is guided by, and what is unequal.

A row may differ from the others in what its own layer of the file names. Where rows differ in something that no layer
names, a plain warning says so: the comparison is then of that as well.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, NamedTuple

import numpy as np

from anastyle.errors import AnastyleError
from anastyle.evaluation.formats import piped
from anastyle.evaluation.tables import DASH, Row
from anastyle.evaluation.terms import INTERFACE, Terms, terms
from anastyle.evaluation.values import COST
from anastyle.experiment import Experiment, Run
from anastyle.stages.choice import Choice

PAINT = ("autoencoder", "embedder", "aligner", "fuser", "backbone")  # what a row needs to have terms
TITLE, WARNINGS = "Terms of comparison", "Warnings"
FILE = "fairness.md"
MINUTES = COST + "minutes"
PRESENT = {"autoencode": ("autoencoder",), "disentangle": ("encoder", "aligner"), "align": ("encoder", "aligner")}


class Column(NamedTuple):
    """One term, and which sections of a row's own layer explain that it differs."""

    title: str
    read: Callable[[Terms], Any]
    owners: frozenset[str]


@dataclass(frozen=True)
class Card:
    """The terms of all rows of a study."""

    rows: list[Terms] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    """Rows that are no better than their own start."""
    missing: list[str] = field(default_factory=list)
    """Rows whose terms could not be found."""

    @property
    def warnings(self) -> list[str]:
        """What is unequal and not said to be."""
        return [*self.starts, *self.missing, *unequal([row for row in self.rows if not row.reference])]

    def lines(self) -> list[list[str]]:
        """Return the card as cells, the heads first."""
        stages = list(dict.fromkeys(stage for row in self.rows for stage in row.seen))
        heads = ["row", "trains", *stages, "training, min", "condition tokens", "its base had read",
                 "captions dropped: whole / anatomy / style", "guidance"]  # fmt: skip
        return [heads, *([*cells(row, stages)] for row in self.rows)]

    def markdown(self) -> str:
        """Return the card as a table for a README, and its warnings."""
        if not self.rows:
            return ""
        heads, *lines = self.lines()
        table = [piped(heads), "|---|" + "---|" * (len(heads) - 1), *map(piped, lines)]
        warned = [f"### {WARNINGS}", "", *(f"**Warning:** {text}\n" for text in self.warnings)] if self.warnings else []
        return "\n".join([f"### {TITLE}", "", *table, "", *warned])

    def text(self) -> str:
        """Return the card for a terminal, a term a line."""
        if not self.rows:
            return ""
        heads, *lines = self.lines()
        shown = [f"  {TITLE.lower()}"]
        for line in lines:
            shown.append(f"    {line[0]}")
            shown += [f"      {head}: {cell}" for head, cell in zip(heads[1:], line[1:], strict=True) if cell != DASH]
        return "\n".join([*shown, *(f"  warning: {text}" for text in self.warnings)])

    def html(self) -> str:
        """Return the card as HTML."""
        if not self.rows:
            return ""
        heads, *lines = self.lines()
        top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
        body = [
            f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
            for name, *rest in lines
        ]
        return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def cells(row: Terms, stages: Sequence[str]) -> Iterator[str]:
    """Yield one row of the card."""
    yield f"{row.name} (reference)" if row.reference else row.name
    yield ", ".join(f"{part} {number:,}" for part, number in row.trains.items() if number) or "nothing"
    yield from (str(row.seen.get(stage, DASH)) for stage in stages)
    yield DASH if row.minutes is None else f"{row.minutes:.1f}"
    yield row.tokens
    yield row.base
    yield DASH if row.dropped is None else str(row.dropped)
    yield f"{row.found}; {row.guidance}" if row.found else row.guidance


def card(experiment: Experiment, examples: int | None = None) -> Card:
    """Return what can be known of a study's terms before anything runs.

    Arguments:
        examples: training images; None: not known yet.
    """
    seed, found = experiment.seeds[0], Card()
    for name, config in experiment.variants.items():
        if config["stages"].get("generate") is not None and all(config[part] is not None for part in PAINT):
            beside, layer = name in experiment.references, experiment.layers.get(name, {})
            try:
                row = terms(Run(experiment.name, name, seed, config), layer, examples, reference=beside)
            except (AnastyleError, RuntimeError) as error:  # a part that cannot be built without its weights
                found.missing.append(f"{name}: its terms are not known: {str(error).splitlines()[0]}")
            else:
                found.rows.append(row)
    return found


def unequal(rows: Sequence[Terms]) -> Iterator[str]:
    """Say in what rows differ that the layers of none of them name."""
    yield from idle(rows)
    for column in columns(rows):
        silent = [row for row in rows if not row.named & column.owners]
        groups: dict[str, list[str]] = {}
        for row in silent:
            groups.setdefault(str(column.read(row)), []).append(row.name)
        if len(groups) > 1:
            told = "; ".join(f"{', '.join(names)}: {value}" for value, names in groups.items())
            owners = " or ".join(sorted(column.owners))
            yield f"rows differ in {column.title} ({told}), and none of them names {owners} in the file"


def idle(rows: Sequence[Terms]) -> Iterator[str]:
    """Name the rows that learn no interface of their own, where others do."""
    learned = [row.name for row in rows if row.interface]
    for row in rows:
        if learned and not row.interface and not row.whole:
            yield (
                f"{row.name} trains nothing between words and backbone, and {', '.join(learned)} do: what it shows is "
                "what its base could already do"
            )


def columns(rows: Sequence[Terms]) -> Iterator[Column]:
    """Yield the terms that ought to be equal."""
    for stage in dict.fromkeys(stage for row in rows for stage in row.seen):
        owners = frozenset([f"stages.{stage}", *PRESENT.get(stage, ())])
        yield Column(f"what {stage} goes through", lambda row, stage=stage: row.seen.get(stage, "nothing"), owners)
    yield Column("condition tokens", lambda row: row.tokens, frozenset(INTERFACE))
    yield Column("what their bases had read before", lambda row: row.base, frozenset(["embedder", "backbone"]))
    yield Column(
        "the share of captions dropped whole",
        lambda row: None if row.dropped is None else f"{row.dropped.whole:.2f}",
        frozenset(["stages.diffuse"]),
    )
    yield Column(
        "the shares of captions dropped in part",
        lambda row: None if row.dropped is None else " / ".join(f"{share:.2f}" for share in row.dropped[1:]),
        frozenset(["stages.diffuse", "fuser"]),  # words carry both factors: a fuser of words drops none alone
    )
    yield Column("how guidance is found", lambda row: row.guidance, frozenset(["stages.validate", "stages.generate"]))


def completed(
    before: Card, rows: Sequence[Row], choices: Mapping[tuple[str, int], Choice], references: Sequence[str]
) -> Card:
    """Return the card of a study that has run: with its minutes, and with what its rows chose on validation captions.

    Arguments:
        choices: (row, seed) -> what it chose.
    """

    def after(row: Terms) -> Terms:
        minutes = [run.values[MINUTES].value for run in rows if run.variant == row.name and MINUTES in run.values]
        chosen = {seed: choice for (name, seed), choice in choices.items() if name == row.name}
        return replace(row, minutes=float(np.mean(minutes)) if minutes else None, found=painted(chosen))

    starts = [
        f"{name}, seed {seed}: {choice.warning}"
        for (name, seed), choice in choices.items()
        if choice.warning and name not in references
    ]
    return Card([after(row) for row in before.rows], starts, before.missing)


def painted(choices: Mapping[int, Choice]) -> str:
    """Return the guidance and steps that a row's seeds chose."""
    said = {seed: f"{one.guidance:g} in {one.steps} steps" for seed, one in choices.items() if one.candidates}
    if len(set(said.values())) < 2:
        return next(iter(said.values()), "")
    return ", ".join(f"{text} (seed {seed})" for seed, text in said.items())
