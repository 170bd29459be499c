"""What ``anastyle evaluate`` prints and writes: a table, and the same as JSON, Markdown and CSV."""

import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from anastyle.evaluation.formats import in_full, piped
from anastyle.evaluation.measures import NUMBERS, Number, key_of
from anastyle.evaluation.memorisation.record import FILE, Memorisation
from anastyle.evaluation.tables import DASH
from anastyle.evaluation.values import Value
from anastyle.files import write_whole

LEGEND = (
    "↓ lower is better, ↑ higher is better; the interval is of 95 %; "
    "floor: real images against other real images, what a perfect generator would get"
)


class Side(NamedTuple):
    """One of the two folders."""

    folder: Path
    images: int


class Comparison(NamedTuple):
    """Two folders, and what was measured between them."""

    real: Side
    generated: Side
    networks: list[str]
    values: dict[str, Value]
    notes: list[str]
    copied: Memorisation | None = None

    @property
    def remarks(self) -> list[str]:
        """The notes, and before them what the memorisation gate says."""
        return [*([f"memorisation: {self.copied.verdict}: {self.copied.reason}"] if self.copied else []), *self.notes]


class Line(NamedTuple):
    """One number of the table."""

    network: str
    number: Number
    value: Value

    @property
    def title(self) -> str:
        """What the number is, with an arrow to its better side."""
        return f"{self.number.title} {'↓' if self.number.lower_is_better else '↑'}"

    @property
    def span(self) -> str:
        """The interval, or a dash."""
        low, high = self.value.low, self.value.high
        return DASH if low is None or high is None else f"{shown(low)} to {shown(high)}"


def lines(found: Comparison) -> Iterator[Line]:
    """Yield the numbers that are defined, network by network."""
    for network in found.networks:
        for name, number in NUMBERS.items():
            if value := found.values.get(key_of(name, network)):
                yield Line(network, number, value)


def shown(value: float | None) -> str:
    """Return a number with four decimals, small ones by their power of ten."""
    if value is None:
        return DASH
    return f"{value:.4f}" if abs(value) >= 0.001 or abs(value) < 1e-12 else f"{value:.1e}"


def headline(found: Comparison) -> str:
    """Say what was compared."""
    (real, count), (generated, n) = found.real, found.generated
    return f"{n} images of {generated} against {count} of {real}"


def as_text(found: Comparison) -> str:
    """Return what the command prints."""
    rows, network = [headline(found)], ""
    for line in lines(found):
        if line.network != network:
            network = line.network
            rows += ["", f"  {network:<22}{'value':>12}{'95 % interval':>28}{'floor':>14}"]
        value, floor = shown(line.value.value), shown(line.value.floor)
        rows.append(f"    {line.title:<20}{value:>12}{line.span:>28}{floor:>14}")
    return "\n".join([*rows, "", f"  {LEGEND}", *(f"  note: {note}" for note in found.remarks), ""])


def as_markdown(found: Comparison) -> str:
    """Return the table for a README, every number's protocol under it."""
    rows = [headline(found), "", "| features | number | value | 95 % interval | floor | n | card |"]
    rows.append("|---|---|--:|--:|--:|--:|---|")
    for line in lines(found):
        value = line.value
        cells = (line.network, line.title, shown(value.value), line.span, shown(value.floor), value.n, value.hash)
        rows.append(piped([str(cell) for cell in cells]))
    rows += ["", f"{LEGEND}. Numbers compare where their cards are the same.", ""]
    rows += [f"- Note: {note}." for note in found.remarks]
    rows += [f"- {line.value.hash}: {line.value.protocol}." for line in lines(found)]
    return "\n".join(rows) + "\n"


def as_csv(found: Comparison) -> str:
    """Return one line a number, in full."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["features", "number", "value", "low", "high", "floor", "n", "card", "protocol"])
    for line in lines(found):
        value = line.value
        numbers = in_full(value.value, value.low, value.high, value.floor)
        writer.writerow([line.network, line.number.title, *numbers, value.n, value.hash, value.protocol])
    return out.getvalue()


def as_json(found: Comparison) -> str:
    """Return everything, every number with its card."""
    sides = {name: {"folder": str(side.folder), "images": side.images} for name, side in
             (("real", found.real), ("generated", found.generated))}  # fmt: skip
    values = {key: {**value.to_json(), "hash": value.hash} for key, value in found.values.items()}
    return json.dumps({**sides, "notes": found.remarks, "values": values}, indent=2, ensure_ascii=False) + "\n"


def write(found: Comparison, folder: Path) -> list[Path]:
    """Write evaluation.json, .md and .csv, and what is known of copies, into a folder and return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"json": as_json(found), "md": as_markdown(found), "csv": as_csv(found)}
    for suffix, text in texts.items():
        write_whole(folder / f"evaluation.{suffix}", text.encode())
    written = [folder / f"evaluation.{suffix}" for suffix in texts]
    if found.copied:
        found.copied.write(folder)
        written.append(folder / FILE)
    return written
