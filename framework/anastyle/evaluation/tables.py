"""The table of a study: a row a variant, a column a metric.

In bold stand the best row and those that nothing separates from it, where something separates from these (``LEGEND``);
mean ± standard deviation over seeds where there are several, a dash where a number is missing, and under the rows what
real images would get. A dagger marks a cell that was measured by another protocol than the first of its column: such
numbers do not compare, and take no part in the ranking. Reference rows stand below the variants and are not ranked.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import numpy as np

from anastyle.evaluation.control.change import CHANGE, OTHER
from anastyle.evaluation.control.codes import DCI, PROBE, RETRIEVAL
from anastyle.evaluation.control.faithful import FAITHFUL
from anastyle.evaluation.control.faithful import MEAN as FAITHFUL_MEAN
from anastyle.evaluation.control.leakage import ARRIVED, EXCESS, LEAKAGE, NOISE, SWAP
from anastyle.evaluation.control.linked import AS_LINKED, KEPT, LINKED
from anastyle.evaluation.control.pairs import PAIRS
from anastyle.evaluation.differences import Paired
from anastyle.evaluation.evaluate import CORRECTED, FACTOR, MEAN, MEAN_CORRECTED
from anastyle.evaluation.measures import NUMBERS
from anastyle.evaluation.samples import Row
from anastyle.evaluation.values import COST, Value, alike

DASH = "—"
FLOOR, CHANCE = "floor: real vs real, or chance", "floor: chance"
DECODED, CEILING = "ceiling: real, after the autoencoder", "ceiling: real"
EXCHANGED = "One text exchanged"
SAME_WORDS = "floor: other noise, same words, mean over rows"
LEGEND = (
    "Bold: the best row and every row that does not separate from it; nothing, where all are alike. Two rows separate "
    "where the paired 95 % interval of their difference leaves zero out; without stored results by caption, where they "
    "are two standard errors over seeds apart, or with one seed, where their intervals do not overlap. A number beyond "
    "its floor counts as the floor."
)
REFERENCES = "Rows in italics are references beside the variants and are not ranked."
AUTHENTIC = "authenticity"
OTHER_FLOOR = 0.03  # share of n by which a floor's images may differ in number from a row's
CONTROL = {  # prefix of a group's keys -> what its table is called, and what its floor is
    FAITHFUL: ("What the caption says and the image shows, %", "floor: another caption's images"),
    SWAP: (f"{EXCHANGED}: which answers change, %", SAME_WORDS),
    CHANGE: (f"{EXCHANGED}: what changes in the image", SAME_WORDS),
    LINKED: ("Captions that break a link of the training images, %", "floor: chance, or the judge on real images"),
    PROBE: ("Linear probes of the codes, %", CHANCE),
    DCI: ("Disentanglement, completeness, informativeness of the codes, %", CHANCE),
    RETRIEVAL: ("Retrieval of an image by its caption, %", CHANCE),
}
JOINED = {  # how the keys of a group read
    "faithful": "{1}",
    "swap": "{} text moves {}",
    "change": "{} text changes {}",
    "linked": "{} {}",
    "probe": "{} {} code tells {}",
    "dci": "{} {}",
    "retrieval": "{1}, {0}",
}


@dataclass(frozen=True)
class Ranking:
    """What decides which rows of a table are ranked, and which of them separate."""

    paired: Paired | None = None
    references: Collection[str] = ()  # rows that stand below the variants, unranked


UNPAIRED = Ranking()


@dataclass(frozen=True)
class Column:
    """One metric as a table shows it."""

    key: str
    title: str
    lower_is_better: bool
    scale: float = 1.0
    digits: int = 2
    difference: bool = False  # shown with its interval, and not ranked
    ranked: bool = True  # is one side of it better?

    @property
    def arrow(self) -> str:
        if not self.ranked:
            return ""
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
    best: bool = False  # or not separated from the best
    differs: bool = False  # measured by another protocol than the column's first, or a floor of other many images
    limit: float | None = None  # what lies beyond it counts as it


@dataclass(frozen=True)
class Line:
    """One line of a table."""

    name: str
    cells: list[Cell]
    reference: bool = False


@dataclass
class Table:
    """Variants by metrics, and what real images get."""

    columns: list[Column]
    lines: list[Line] = field(default_factory=list)
    bounds: list[Line] = field(default_factory=list)
    protocols: dict[str, str] = field(default_factory=dict)  # column -> protocol
    title: str = ""
    quiet: bool = False  # for the CSV alone

    @property
    def legend(self) -> str:
        """What the marks mean."""
        ranked = any(shown.ranked and not shown.difference for shown in self.columns)
        beside = any(line.reference for line in self.lines)
        several = sum(not line.reference for line in self.lines) > 1
        return " ".join([LEGEND] * (ranked and several) + [REFERENCES] * beside)

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
    "fd_random_conv": Column("fd_random_conv", "FD random conv.", True, 1.0, 3),
    "kid_random_conv": Column("kid_random_conv", "KID random conv. × 10³", True, 1000.0, 1),
    "fd_highfreq": Column("fd_highfreq", "FD high-freq.", True),
    "precision": Column("precision", "Precision, %", False, 100.0, 1),
    "recall": Column("recall", "Recall, %", False, 100.0, 1),
    "density": Column("density", "Density", False),
    "coverage": Column("coverage", "Coverage, %", False, 100.0, 1),
    "copy_rate": Column("copy_rate", "Copies, %", True, 100.0, 1),
    "authenticity": Column("authenticity", "Authentic, %", False, 100.0, 1),
    "label_accuracy": Column("label_accuracy", "Label, %", False, 100.0, 1),
    MEAN: Column(MEAN, "Factors, %", False, 100.0, 1),
    MEAN_CORRECTED: Column(MEAN_CORRECTED, "Factors, chance-corrected, %", False, 100.0, 1),
    LEAKAGE: Column(LEAKAGE, "Leakage above own floor, %", True, 100.0, 1),
    PAIRS: Column(PAIRS, "Pair Dice", False, 1.0, 3),
    FAITHFUL_MEAN: Column(FAITHFUL_MEAN, "Caption, %", False, 100.0, 1),
}


def column(key: str) -> Column:
    """Return how a metric is shown."""
    if key in KNOWN:
        return KNOWN[key]
    if key.startswith((FACTOR, CORRECTED)):
        return Column(key, key.partition("/")[2], False, 100.0, 1)
    if key.startswith(COST):
        return COSTS[key.removeprefix(COST)]
    if key.startswith(tuple(CONTROL)):
        return control_column(key)
    number, _, network = key.partition("_")
    if number in NUMBERS:
        title = NUMBERS[number].title + (f", {network}" if network else "")
        return Column(key, title, NUMBERS[number].lower_is_better, 1.0, 3)
    return Column(key, key.replace("_", " "), False, 1.0, 3)


def control_column(key: str) -> Column:
    """Return how a metric of ``CONTROL`` is shown."""
    group, *words = key.split("/")
    if group == "linked":
        title = " ".join(words).replace(KEPT, "as asked").replace(AS_LINKED, "as linked")
        return Column(key, title, words[-1] == AS_LINKED, 100.0, 1)
    if words[-1] == ARRIVED:
        return Column(key, f"{words[0]} text arrives", False, 100.0, 1)
    if group == "swap" and words[0] == NOISE:
        return Column(key, f"other noise moves {words[1]}: own floor", True, 100.0, 1, ranked=False)
    title = JOINED[group].format(*words)
    if group == "change":
        return Column(key, title, words[1] in OTHER[words[0]], 1.0, 3)
    if words[-1] == EXCESS:
        return Column(key, f"{title}, above own floor", True, 100.0, 1)
    crossed = group in ("swap", "probe") and words[-1] != words[-2]  # what should not show
    return Column(key, title, crossed, 100.0, 1)


def main_table(rows: list[Row], ranking: Ranking = UNPAIRED) -> Table:
    """Return the table of everything that is no part of a group."""
    keys = [key for key in metrics(rows) if "/" not in key]
    return build(rows, sorted(keys, key=lambda key: [*KNOWN, key].index(key)), ranking=ranking)


def factor_table(rows: list[Row], ranking: Ranking = UNPAIRED) -> Table:
    """Return the table of the single factors' accuracies; without columns where factors are not known."""
    return group_table(rows, FACTOR, ranking=ranking)


def corrected_table(rows: list[Row], ranking: Ranking = UNPAIRED) -> Table:
    """Return the same accuracies between chance and ceiling, for the CSV."""
    table = group_table(rows, CORRECTED, title="Factors, chance-corrected, %", ranking=ranking)
    table.quiet = True
    return table


def control_tables(rows: list[Row], ranking: Ranking = UNPAIRED) -> list[Table]:
    """Return the leakage matrix, what the codes hold, and retrieval; those that any row has."""
    tables = [group_table(rows, prefix, floor, title, ranking) for prefix, (title, floor) in CONTROL.items()]
    return [table for table in tables if table.columns]


def cost_table(rows: list[Row], ranking: Ranking = UNPAIRED) -> Table:
    """Return the table of what an image and a training cost; without columns where that was not measured."""
    return group_table(rows, COST, title="What it costs", ranking=ranking)


def group_table(
    rows: list[Row], prefix: str, floor: str = CHANCE, title: str = "", ranking: Ranking = UNPAIRED
) -> Table:
    """Return the table of the metrics whose keys begin alike."""
    keys = [key for key in metrics(rows) if key.startswith(prefix)]
    return build(rows, keys, floor=floor, title=title, ranking=ranking)


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
    ranking: Ranking = UNPAIRED,
) -> Table:
    """Return the table of these metrics, variants in order of appearance; ``column`` says how a metric is shown."""
    table = Table([column(key) for key in keys], title=title)
    names = list(dict.fromkeys(row.variant for row in rows))
    variants = [name for name in names if name not in ranking.references]
    names = [*variants, *(name for name in names if name in ranking.references)]
    found = {(name, key): values_of(rows, name, key) for name in names for key in keys}
    firsts = {key: next((found[name, key][0] for name in names if found[name, key]), None) for key in keys}
    table.protocols = {key: first.protocol if first else "" for key, first in firsts.items()}
    shown = {column.key: column for column in table.columns}
    cells = {(name, key): cell_of(values, firsts[key], shown[key]) for (name, key), values in found.items()}
    for some in table.columns:
        mark(cells, variants, some, ranking.paired)
    table.lines = [Line(name, [cells[name, key] for key in keys], name in ranking.references) for name in names]
    table.bounds = bounds(rows, keys, floor)
    return table


def values_of(rows: list[Row], variant: str, key: str) -> list[Value]:
    """Return a variant's finite values of a metric, one a seed."""
    values = [row.values[key] for row in rows if row.variant == variant and key in row.values]
    return [value for value in values if np.isfinite(value.value)]


def cell_of(values: list[Value], first: Value | None, shown: Column) -> Cell:
    """Return the mean over seeds, with its spread or an interval; ``first`` is the first value of the column."""
    if not values or first is None:
        return Cell()
    numbers = [value.value for value in values]
    several = len(numbers) > 1
    floors = [value.floor for value in values if value.floor is not None]
    return Cell(
        mean=float(np.mean(numbers)),
        std=float(np.std(numbers, ddof=1)) if several else None,
        low=None if several else values[0].low,
        high=None if several else values[0].high,
        seeds=len(numbers),
        n=values[0].n,
        differs=any(not alike(value, first) for value in values),
        limit=float(np.mean(floors)) if floors and limited(values[0], shown) else None,
    )


def limited(value: Value, shown: Column) -> bool:
    """Say whether the floor is what real images, or no change at all, would get: nothing is better than that.

    The floor of what should be high is chance, but where it is the share of real images near others.
    """
    return shown.lower_is_better or value.card is not None or shown.key == AUTHENTIC


def mark(cells: dict[tuple[str, str], Cell], variants: list[str], shown: Column, paired: Paired | None) -> None:
    """Mark the best of a column, and those that do not separate from it, unless that is all of them."""
    known = {name: cells[name, shown.key] for name in variants}
    known = {name: cell for name, cell in known.items() if cell.mean is not None and not cell.differs}
    if len(known) < 2 or shown.difference or not shown.ranked:
        return
    sign = 1 if shown.lower_is_better else -1
    best = min(known, key=lambda name: sign * counted(known[name], shown))
    alike_to_best = [name for name in known if name == best or not separate(best, name, known, shown, paired)]
    if len(alike_to_best) < len(known):
        for name in alike_to_best:
            cells[name, shown.key] = replace(known[name], best=True)


def counted(cell: Cell, shown: Column) -> float:
    """Return a cell's number, or its floor where it lies beyond."""
    assert cell.mean is not None
    if cell.limit is None:
        return cell.mean
    return max(cell.mean, cell.limit) if shown.lower_is_better else min(cell.mean, cell.limit)


def separate(best: str, other: str, known: dict[str, Cell], shown: Column, paired: Paired | None) -> bool:
    """Say whether the spread is too small for the difference of two rows to be chance."""
    one, two = known[best], known[other]
    gap = counted(one, shown) - counted(two, shown)
    if shown.show(counted(one, shown)) == shown.show(counted(two, shown)):
        return False
    found = paired.between(best, other, shown.key) if paired else None
    if found is not None:
        return abs(gap) > (found.high - found.low) / 2
    if one.std is not None and two.std is not None:
        return abs(gap) > 2 * float(np.hypot(one.std / one.seeds**0.5, two.std / two.seeds**0.5))
    return abs(gap) > reach(one, gap < 0) + reach(two, gap > 0)


def reach(cell: Cell, upwards: bool) -> float:
    """Return how far a cell's interval reaches to one side; without end, where nothing is known of it."""
    if cell.std is not None:
        return 2 * cell.std / cell.seeds**0.5
    end = cell.high if upwards else cell.low
    return float("inf") if end is None or cell.mean is None else abs(end - cell.mean)


def bounds(rows: list[Row], keys: list[str], floor: str) -> list[Line]:
    """Return the lines under the variants: floor, and the ceilings where any metric has one."""
    readers: dict[str, Callable[[Value], float | None]] = {
        floor: lambda value: value.floor,
        DECODED: lambda value: value.decoded,
        CEILING: lambda value: value.ceiling,
    }
    lines = []
    for name, read in readers.items():
        columns = [[row.values[key] for row in rows if key in row.values] for key in keys]
        cells = [bound(values, read, is_floor=name == floor) for values in columns]
        if any(cell.mean is not None for cell in cells):
            lines.append(Line(name, cells))
    return lines


def bound(values: list[Value], read: Callable[[Value], float | None], *, is_floor: bool) -> Cell:
    """Return the mean of a bound over runs; a floor of other many images than the rows' is told apart."""
    known = [(value, number) for value in values if (number := read(value)) is not None]
    if not known:
        return Cell()
    differs = is_floor and any(unlike_floor(value) for value, _ in known)
    return Cell(float(np.mean([number for _, number in known])), differs=differs)


def unlike_floor(value: Value) -> bool:
    """Say whether a floor hangs on its number of images, and that is not the row's; kernel distances are unbiased."""
    card = value.card
    if card is None or card.what.startswith(("Kernel", "CMMD")):
        return False
    return abs(card.held - card.generated) > OTHER_FLOOR * card.generated
