"""The table of a study: a row a variant, a column a metric.

Best in bold, second best underlined, mean ± standard deviation over seeds where there are several, a dash where a
number is missing, and under the rows what real images would get. A dagger marks a cell that was measured by another
protocol than the first of its column: such numbers do not compare, and take no part in the ranking.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from anastyle.evaluation.control.change import CHANGE, OTHER
from anastyle.evaluation.control.codes import DCI, PROBE, RETRIEVAL
from anastyle.evaluation.control.faithful import FAITHFUL
from anastyle.evaluation.control.faithful import MEAN as FAITHFUL_MEAN
from anastyle.evaluation.control.leakage import SWAP
from anastyle.evaluation.control.pairs import PAIRS
from anastyle.evaluation.evaluate import FACTOR, MEAN
from anastyle.evaluation.measures import NUMBERS
from anastyle.evaluation.values import COST, Value

DASH = "—"
FLOOR, CHANCE = "floor: real vs real, or chance", "floor: chance"
DECODED, CEILING = "ceiling: real, after the autoencoder", "ceiling: real"
EXCHANGED = "One text exchanged"
SAME_WORDS = "floor: other noise, same words"
CONTROL = {  # prefix of a group's keys -> what its table is called, and what its floor is
    FAITHFUL: ("What the caption says and the image shows, %", "floor: another caption's images"),
    SWAP: (f"{EXCHANGED}: which answers change, %", SAME_WORDS),
    CHANGE: (f"{EXCHANGED}: what changes in the image", SAME_WORDS),
    PROBE: ("Linear probes of the codes, %", CHANCE),
    DCI: ("Disentanglement, completeness, informativeness of the codes, %", CHANCE),
    RETRIEVAL: ("Retrieval of an image by its caption, %", CHANCE),
}
JOINED = {  # how the keys of a group read
    "faithful": "{1}",
    "swap": "{} text moves {}",
    "change": "{} text changes {}",
    "probe": "{} {} code tells {}",
    "dci": "{} {}",
    "retrieval": "{1}, {0}",
}


@dataclass(frozen=True)
class Row:
    """What one run of a study was worth."""

    variant: str
    seed: int
    values: dict[str, Value]


@dataclass(frozen=True)
class Column:
    """One metric as a table shows it."""

    key: str
    title: str
    lower_is_better: bool
    scale: float = 1.0
    digits: int = 2
    difference: bool = False  # shown with its interval, and not ranked

    @property
    def arrow(self) -> str:
        return "↓" if self.lower_is_better else "↑"

    def show(self, value: float | None) -> str:
        """Return the number as the table writes it."""
        return DASH if value is None else f"{value * self.scale:.{self.digits}f}"


@dataclass(frozen=True)
class Cell:
    """One variant's result by one metric, over its seeds."""

    mean: float | None = None
    std: float | None = None  # over seeds; None for one seed
    low: float | None = None  # of one seed's interval
    high: float | None = None
    seeds: int = 0
    n: int = 0  # generated images a seed
    rank: int = 0  # 1 best, 2 second, 0 neither
    differs: bool = False  # measured by another protocol than the column's first


@dataclass(frozen=True)
class Line:
    """One line of a table."""

    name: str
    cells: list[Cell]


@dataclass
class Table:
    """Variants by metrics, and what real images get."""

    columns: list[Column]
    lines: list[Line] = field(default_factory=list)
    bounds: list[Line] = field(default_factory=list)
    protocols: dict[str, str] = field(default_factory=dict)  # column -> protocol
    title: str = ""

    def text(self, column: int, cell: Cell) -> str:
        """Return a cell as plain text."""
        shown = self.columns[column]
        text = shown.show(cell.mean)
        if cell.std is not None:
            text += f" ± {shown.show(cell.std)}"
        elif shown.difference and cell.low is not None and cell.high is not None:
            text += f" ({shown.show(cell.low)} to {shown.show(cell.high)})"
        return text + ("†" if cell.differs else "")


COSTS = {
    "parameters": Column("cost/parameters", "parameters, 10⁶", True, 1e-6, 1),
    "gflop": Column("cost/gflop", "GFLOP", True, 1.0, 1),
    "seconds": Column("cost/seconds", "seconds", True, 1.0, 3),
    "gib": Column("cost/gib", "GiB", True, 1.0, 2),
    "minutes": Column("cost/minutes", "training, min", True, 1.0, 1),
}
KNOWN = {
    "fd_domain": Column("fd_domain", "FD domain", True),
    "kid": Column("kid", "KID × 10³", True, 1000.0, 1),
    "fd_highfreq": Column("fd_highfreq", "FD high-freq.", True),
    "precision": Column("precision", "Precision, %", False, 100.0, 1),
    "recall": Column("recall", "Recall, %", False, 100.0, 1),
    "density": Column("density", "Density", False),
    "coverage": Column("coverage", "Coverage, %", False, 100.0, 1),
    "copy_rate": Column("copy_rate", "Copies, %", True, 100.0, 1),
    "authenticity": Column("authenticity", "Authentic, %", False, 100.0, 1),
    "label_accuracy": Column("label_accuracy", "Label, %", False, 100.0, 1),
    MEAN: Column(MEAN, "Factors, %", False, 100.0, 1),
    PAIRS: Column(PAIRS, "Pair Dice", False, 1.0, 3),
    FAITHFUL_MEAN: Column(FAITHFUL_MEAN, "Caption, %", False, 100.0, 1),
}


def column(key: str) -> Column:
    """Return how a metric is shown."""
    if key in KNOWN:
        return KNOWN[key]
    if key.startswith(FACTOR):
        return Column(key, key.removeprefix(FACTOR), False, 100.0, 1)
    if key.startswith(COST):
        return COSTS[key.removeprefix(COST)]
    if key.startswith(tuple(CONTROL)):
        group, *words = key.split("/")
        title = JOINED[group].format(*words)
        if group == "change":
            return Column(key, title, words[1] in OTHER[words[0]], 1.0, 3)
        crossed = group in ("swap", "probe") and words[-1] != words[-2]  # what should not show
        return Column(key, title, crossed, 100.0, 1)
    number, _, network = key.partition("_")
    if number in NUMBERS:
        title = NUMBERS[number].title + (f", {network}" if network else "")
        return Column(key, title, NUMBERS[number].lower_is_better, 1.0, 3)
    return Column(key, key.replace("_", " "), False, 1.0, 3)


def main_table(rows: list[Row]) -> Table:
    """Return the table of everything that is no part of a group."""
    keys = [key for key in metrics(rows) if "/" not in key]
    return build(rows, sorted(keys, key=lambda key: [*KNOWN, key].index(key)))


def factor_table(rows: list[Row]) -> Table:
    """Return the table of the single factors' accuracies; without columns where factors are not known."""
    return group_table(rows, FACTOR)


def control_tables(rows: list[Row]) -> list[Table]:
    """Return the leakage matrix, what the codes hold, and retrieval; those that any row has."""
    tables = [group_table(rows, prefix, floor, title) for prefix, (title, floor) in CONTROL.items()]
    return [table for table in tables if table.columns]


def cost_table(rows: list[Row]) -> Table:
    """Return the table of what an image and a training cost; without columns where that was not measured."""
    return group_table(rows, COST, title="What it costs")


def group_table(rows: list[Row], prefix: str, floor: str = CHANCE, title: str = "") -> Table:
    """Return the table of the metrics whose keys begin alike."""
    return build(rows, [key for key in metrics(rows) if key.startswith(prefix)], floor=floor, title=title)


def metrics(rows: list[Row]) -> list[str]:
    """Name every metric of any row, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row.values))


def build(
    rows: list[Row],
    keys: list[str],
    *,
    floor: str = FLOOR,
    title: str = "",
    column: Callable[[str], Column] = column,
) -> Table:
    """Return the table of these metrics, variants in order of appearance; ``column`` says how a metric is shown."""
    table = Table([column(key) for key in keys], title=title)
    variants = list(dict.fromkeys(row.variant for row in rows))
    found = {(variant, key): values_of(rows, variant, key) for variant in variants for key in keys}
    firsts = {key: next((found[variant, key][0] for variant in variants if found[variant, key]), None) for key in keys}
    table.protocols = {key: first.protocol if first else "" for key, first in firsts.items()}
    cells = {at: cell_of(values, firsts[at[1]]) for at, values in found.items()}
    for shown in table.columns:
        rank(cells, variants, shown)
    table.lines = [Line(variant, [cells[variant, key] for key in keys]) for variant in variants]
    table.bounds = bounds(rows, keys, floor)
    return table


def values_of(rows: list[Row], variant: str, key: str) -> list[Value]:
    """Return a variant's finite values of a metric, one a seed."""
    values = [row.values[key] for row in rows if row.variant == variant and key in row.values]
    return [value for value in values if np.isfinite(value.value)]


def cell_of(values: list[Value], first: Value | None) -> Cell:
    """Return the mean over seeds, with its spread or an interval; ``first`` is the first value of the column."""
    if not values or first is None:
        return Cell()
    numbers = [value.value for value in values]
    several = len(numbers) > 1
    return Cell(
        mean=float(np.mean(numbers)),
        std=float(np.std(numbers, ddof=1)) if several else None,
        low=None if several else values[0].low,
        high=None if several else values[0].high,
        seeds=len(numbers),
        n=values[0].n,
        differs=any(not alike(value, first) for value in values),
    )


def alike(one: Value, other: Value) -> bool:
    """Say whether two numbers were measured alike: by their cards, or where one has none by their protocols."""
    return one.hash == other.hash if one.hash and other.hash else one.protocol == other.protocol


def rank(cells: dict[tuple[str, str], Cell], variants: list[str], shown: Column) -> None:
    """Mark the best of a column and, among three or more, the second; equal numbers share a mark, if not all are."""
    numbers = {name: cells[name, shown.key].mean for name in variants if not cells[name, shown.key].differs}
    known = {name: number for name, number in numbers.items() if number is not None}
    measured = {name: round(number * shown.scale, shown.digits) for name, number in known.items()}
    order = sorted(set(measured.values()), reverse=not shown.lower_is_better)
    if len(order) < 2 or shown.difference:  # nothing is better than anything
        return
    for name, number in measured.items():
        place = order.index(number) + 1
        if place == 1 or (place == 2 and len(measured) > 2):
            cell = cells[name, shown.key]
            cells[name, shown.key] = Cell(**{**vars(cell), "rank": place})


def bounds(rows: list[Row], keys: list[str], floor: str) -> list[Line]:
    """Return the lines under the variants: floor, and the ceilings where any metric has one."""
    readers: dict[str, Callable[[Value], float | None]] = {
        floor: lambda value: value.floor,
        DECODED: lambda value: value.decoded,
        CEILING: lambda value: value.ceiling,
    }
    lines = []
    for name, read in readers.items():
        numbers = [[read(row.values[key]) for row in rows if key in row.values] for key in keys]
        known = [[number for number in column_numbers if number is not None] for column_numbers in numbers]
        if any(known):
            lines.append(Line(name, [Cell(float(np.mean(some))) if some else Cell() for some in known]))
    return lines
