"""Tables as files: Markdown for a README, CSV with every digit, LaTeX for a paper."""

import csv
from collections.abc import Sequence
from io import StringIO
from itertools import groupby
from pathlib import Path

from anastyle.evaluation.tables import DASH, Cell, Line, Row, Table


def write_tables(tables: list[Table], folder: Path, *, under: Sequence[str] = ()) -> list[Path]:
    """Write table.md, table.csv and table.tex, and return where they are; ``under``: Markdown below the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"table.{suffix}" for suffix in ("md", "csv", "tex")]
    shown = [table for table in tables if not table.quiet]
    files[0].write_text("\n".join([*map(markdown, shown), *filter(None, under)]), encoding="utf-8")
    files[1].write_text(comma_separated(tables), encoding="utf-8")
    files[2].write_text("\n".join(map(latex, shown)), encoding="utf-8")
    return files


def markdown(table: Table) -> str:
    """Return a table for a README, with its protocols under it."""
    heads = ["variant", "seeds", "n", *(f"{shown.title} {shown.arrow}".strip() for shown in table.columns)]
    lines = [f"### {table.title}\n"] if table.title else []
    lines += [piped(heads), "|---|" + "--:|" * (len(heads) - 1)]
    for line in table.lines:
        cells = [marked(table, at, cell, line, bold="**{}**", slanted="*{}*") for at, cell in enumerate(line.cells)]
        name = f"*{line.name}*" if line.reference else line.name
        lines.append(piped([name, count(line, "seeds"), count(line, "n"), *cells]))
    for line in table.bounds:
        cells = [f"*{table.text(at, cell)}*" if cell.mean is not None else DASH for at, cell in enumerate(line.cells)]
        lines.append(piped([f"*{line.name}*", "", "", *cells]))
    return "\n".join([*lines, "", *(f"- {note}" for note in [table.legend, *notes(table)] if note), ""])


def marked(table: Table, at: int, cell: Cell, line: Line, *, bold: str, slanted: str) -> str:
    """Return a cell's text, bold where it is best, slanted in a reference row."""
    text = table.text(at, cell)
    if line.reference and cell.mean is not None:
        return slanted.format(text)
    return bold.format(text) if cell.best else text


def piped(cells: list[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def count(line: Line, what: str) -> str:
    """Return how many seeds, or images a seed, stand behind a line."""
    return str(max((getattr(cell, what) for cell in line.cells), default=0) or DASH)


def notes(table: Table) -> list[str]:
    """Return how each column was measured; columns measured alike share a note."""
    pairs = [(protocol, table.columns[at].title) for at, protocol in enumerate(table.protocols.values())]
    alike = groupby(pairs, lambda pair: pair[0])
    found = [f"{', '.join(title for _, title in group)}: {protocol}." for protocol, group in alike if protocol]
    if any(cell.differs for line in table.lines for cell in line.cells):
        found.append("† measured by another protocol than the first of its column: these numbers do not compare.")
    if any(cell.differs for line in table.bounds for cell in line.cells):
        found.append(
            "† a floor of other many images than the rows': a Fréchet distance falls, and shares of near neighbours "
            "change, with their number, so that the two do not compare. A kernel distance hangs on none."
        )
    return found


def comma_separated(tables: list[Table]) -> str:
    """Return one line for each variant and metric, numbers in full."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["variant", "metric", "mean", "std", "low", "high", "seeds", "n", "protocol"])
    for table in tables:
        for line in [*table.lines, *table.bounds]:
            for shown, cell in zip(table.columns, line.cells, strict=True):
                numbers = in_full(cell.mean, cell.std, cell.low, cell.high)
                writer.writerow([line.name, shown.key, *numbers, cell.seeds, cell.n, table.protocols[shown.key]])
    return out.getvalue()


def write_seeds(rows: Sequence[Row], folder: Path) -> Path:
    """Write seeds.csv, every number of every run in full; table.csv says how each was measured."""
    fields = ("value", "low", "high", "floor", "decoded", "ceiling")
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["variant", "seed", "key", *fields, "n"])
    for row in rows:
        for key, value in row.values.items():
            numbers = in_full(*(getattr(value, name) for name in fields))
            writer.writerow([row.variant, row.seed, key, *numbers, value.n])
    file = folder / "seeds.csv"
    file.write_text(out.getvalue(), encoding="utf-8")
    return file


def in_full(*numbers: float | None) -> list[str]:
    """Return numbers with every digit, and nothing for what is missing."""
    return ["" if number is None else repr(number) for number in numbers]


def latex(table: Table) -> str:
    """Return a booktabs tabular, with its legend and protocols as comments."""
    heads = [escape(f"{shown.title} {shown.arrow}".strip()) for shown in table.columns]
    lines = [f"% {note}" for note in [table.legend, *notes(table)] if note]
    lines += [r"\begin{tabular}{l" + "r" * len(heads) + "}", r"\toprule"]
    lines += [" & ".join(["variant", *heads]) + r" \\", r"\midrule"]
    for line in table.lines:
        cells = [latex_cell(table, at, cell, line) for at, cell in enumerate(line.cells)]
        name = rf"\emph{{{escape(line.name)}}}" if line.reference else escape(line.name)
        lines.append(" & ".join([name, *cells]) + r" \\")
    if table.bounds:
        lines.append(r"\midrule")
    for line in table.bounds:
        cells = [escape(table.text(at, cell)) for at, cell in enumerate(line.cells)]
        lines.append(" & ".join([rf"\emph{{{escape(line.name)}}}", *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def latex_cell(table: Table, at: int, cell: Cell, line: Line) -> str:
    """Return a cell as LaTeX."""
    text = escape(table.text(at, cell))
    if line.reference and cell.mean is not None:
        return rf"\emph{{{text}}}"
    return rf"\textbf{{{text}}}" if cell.best else text


ESCAPES = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "³": r"\textsuperscript{3}",
    "†": r"$^\dagger$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    DASH: "---",
}


def escape(text: str) -> str:
    """Return text that LaTeX prints as it stands."""
    return "".join(ESCAPES.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
