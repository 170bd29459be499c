"""The paired differences of a study as files: every pair of rows by every number, and the headlines in one table."""

import csv
from collections.abc import Collection, Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from anastyle.evaluation.control.faithful import MEAN as FAITHFUL_MEAN
from anastyle.evaluation.control.leakage import LEAKAGE
from anastyle.evaluation.differences import Difference, Paired, distance_of
from anastyle.evaluation.evaluate import CORRECTED, MEAN, MEAN_CORRECTED
from anastyle.evaluation.formats import piped
from anastyle.evaluation.measures import KERNEL, key_of
from anastyle.evaluation.samples import Row
from anastyle.evaluation.tables import DASH, column

TITLE = "Paired differences"
FEW_DIGITS = {"highfreq"}  # networks whose distance no headline is made of: it measures the autoencoder
LEAD = (
    "The first row's number less the second's, on the same captions and seeds, with its 95 % interval; ahead or behind "
    "where the interval leaves zero out."
)
ONE_SEED = "Of one seed, the intervals are over captions alone: they say nothing of other trainings."


class Pair(NamedTuple):
    """Two rows that are compared."""

    first: str
    second: str


class Differences(NamedTuple):
    """All differences of a study's rows."""

    pairs: list[Pair]
    keys: list[str]
    found: dict[tuple[Pair, str], Difference]

    @property
    def headlines(self) -> list[str]:
        """Name the numbers that a study is summed up by."""
        chosen = [key for key in self.keys if key in (MEAN, FAITHFUL_MEAN, LEAKAGE) or headline(key)]
        return [key for key in chosen if any((pair, key) in self.found for pair in self.pairs)]

    @property
    def seeds(self) -> int:
        """The fewest seeds behind any of them."""
        return min((difference.seeds for difference in self.found.values()), default=0)


def headline(key: str) -> bool:
    """Is a key a distance that a study is summed up by?"""
    number, _, network = key.partition("_")
    return key == key_of(KERNEL.keys[0], "domain") or (number in ("fd", "kid") and network not in FEW_DIGITS)


def differences(rows: Sequence[Row], paired: Paired, references: Collection[str] = ()) -> Differences:
    """Compare every two variants, and every variant with each reference row, by every number that can be."""
    names = list(dict.fromkeys(row.variant for row in rows))
    variants = [name for name in names if name not in references]
    pairs = [Pair(one, other) for at, one in enumerate(variants) for other in variants[at + 1 :]]
    pairs += [Pair(one, other) for other in names if other in references for one in variants]
    keys = [key for key in dict.fromkeys(key for row in rows for key in row.values) if compared(key, rows)]
    told = {(pair, key): paired.between(*pair, key) for pair in pairs for key in keys}
    return Differences(pairs, keys, {at: difference for at, difference in told.items() if difference})


def compared(key: str, rows: Sequence[Row]) -> bool:
    """Can a number be drawn again? What is another number on another scale is compared once."""
    if key == MEAN_CORRECTED or key.startswith(CORRECTED):
        return False
    return any(row.samples and (key in row.samples or distance_of(key, row.samples)) for row in rows)


def write_differences(told: Differences, folder: Path) -> list[Path]:
    """Write differences.md and differences.csv, and return where they are."""
    files = [folder / f"differences.{suffix}" for suffix in ("md", "csv")]
    files[0].write_text(f"# {TITLE}\n\n{markdown(told, told.keys)}", encoding="utf-8")
    files[1].write_text(comma_separated(told), encoding="utf-8")
    return files


def compact(told: Differences) -> str:
    """Return the headlines for a study's tables, as Markdown; nothing where no two rows can be compared."""
    if not told.headlines:
        return ""
    return f"### {TITLE}\n\n{markdown(told, told.headlines)}"


def markdown(told: Differences, keys: Sequence[str]) -> str:
    """Return a table, a line a pair of rows, a column a number; separated differences in bold."""
    shown = [column(key) for key in keys]
    lines = [piped(["first", "second", *(f"{some.title} {some.arrow}".strip() for some in shown)])]
    lines.append("|---|---|" + "--:|" * len(shown))
    for pair in told.pairs:
        cells = [told.found.get((pair, key)) for key in keys]
        texts = [DASH if cell is None else bold(cell, text(cell)) for cell in cells]
        lines.append(piped([*pair, *texts]))
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(told, keys)), ""])


def text(difference: Difference) -> str:
    """Return a difference with its interval and its verdict, as tables show them."""
    shown = column(difference.key)
    value, low, high = (shown.show(number) for number in (difference.value, difference.low, difference.high))
    sign = "+" if difference.value > 0 else ""
    return f"{sign}{value} ({low} to {high}) {verdict(difference)}"


def verdict(difference: Difference) -> str:
    """Say how the first row stands to the second."""
    shown = column(difference.key)
    if not shown.ranked and difference.separated:
        return "higher" if difference.value > 0 else "lower"
    return difference.verdict(lower_is_better=shown.lower_is_better)


def bold(difference: Difference, words: str) -> str:
    """Return words in bold where the rows separate."""
    return f"**{words}**" if difference.separated else words


def notes(told: Differences, keys: Sequence[str]) -> list[str]:
    """Return how the differences were measured, those alike in one line."""
    by_protocol: dict[str, list[str]] = {}
    for (_, key), difference in told.found.items():
        titles = by_protocol.setdefault(difference.protocol, [])
        if key in keys and column(key).title not in titles:
            titles.append(column(key).title)
    how = [f"{', '.join(titles)}: {protocol}." for protocol, titles in by_protocol.items() if titles]
    return [LEAD, *([ONE_SEED] if told.seeds == 1 else []), *how]


def comma_separated(told: Differences) -> str:
    """Return one line a pair and number, in full."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = ("first", "second", "metric", "difference", "low", "high", "captions", "seeds", "verdict", "protocol")
    writer.writerow(heads)
    for (pair, key), found in told.found.items():
        numbers = [repr(number) for number in (found.value, found.low, found.high)]
        writer.writerow([*pair, key, *numbers, found.n, found.seeds, verdict(found), found.protocol])
    return out.getvalue()


def as_html(told: Differences) -> str:
    """Return the headlines, and behind a heading everything, as HTML."""
    if not told.headlines:
        return ""
    everything = f"<details><summary>Every number</summary>{html_table(told, told.keys)}</details>"
    items = "".join(f"<li>{escape(note)}</li>" for note in notes(told, told.headlines))
    return f'{html_table(told, told.headlines)}<ul class="notes">{items}</ul>{everything}'


def html_table(told: Differences, keys: Sequence[str]) -> str:
    """Return a table as HTML."""
    heads = "".join(f'<th scope="col">{escape(column(key).title)}</th>' for key in keys)
    lines = "".join(
        f'<tr><th scope="row">{escape(pair.first)} − {escape(pair.second)}</th>'
        + "".join(html_cell(told.found.get((pair, key))) for key in keys)
        + "</tr>"
        for pair in told.pairs
    )
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col">rows</th>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def html_cell(difference: Difference | None) -> str:
    """Return one cell: the difference, bold where the rows separate, and under it the interval."""
    if difference is None:
        return f'<td class="missing">{DASH}</td>'
    shown = column(difference.key)
    value = shown.show(difference.value)
    value = f"<b>{value}</b>" if difference.separated else value
    span = f"{shown.show(difference.low)} – {shown.show(difference.high)}, {verdict(difference)}"
    return f'<td>{value}<span class="spread">{span}</span></td>'
