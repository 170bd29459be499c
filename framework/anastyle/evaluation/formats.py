"""Tables as files: Markdown for a README, CSV with every digit, LaTeX for a paper."""

import csv
from io import StringIO
from itertools import groupby
from pathlib import Path

from anastyle.evaluation.tables import DASH, Line, Table


def write_tables(tables: list[Table], folder: Path) -> list[Path]:
    """Write table.md, table.csv and table.tex, and return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"table.{suffix}" for suffix in ("md", "csv", "tex")]
    files[0].write_text("\n".join(markdown(table) for table in tables), encoding="utf-8")
    files[1].write_text(comma_separated(tables), encoding="utf-8")
    files[2].write_text("\n".join(latex(table) for table in tables), encoding="utf-8")
    return files


def markdown(table: Table) -> str:
    """Return a table for a README, with its protocols under it."""
    marks = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}
    heads = ["variant", "seeds", "n", *(f"{shown.title} {shown.arrow}" for shown in table.columns)]
    lines = [f"### {table.title}\n"] if table.title else []
    lines += [piped(heads), "|---|" + "--:|" * (len(heads) - 1)]
    for line in table.lines:
        cells = [marks[cell.rank].format(table.text(at, cell)) for at, cell in enumerate(line.cells)]
        lines.append(piped([line.name, count(line, "seeds"), count(line, "n"), *cells]))
    for line in table.bounds:
        cells = [f"*{table.text(at, cell)}*" if cell.mean is not None else DASH for at, cell in enumerate(line.cells)]
        lines.append(piped([f"*{line.name}*", "", "", *cells]))
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(table)), ""])


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


def in_full(*numbers: float | None) -> list[str]:
    """Return numbers with every digit, and nothing for what is missing."""
    return ["" if number is None else repr(number) for number in numbers]


def latex(table: Table) -> str:
    """Return a booktabs tabular, with its protocols as comments."""
    marks = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
    heads = [escape(f"{shown.title} {shown.arrow}") for shown in table.columns]
    lines = [*(f"% {note}" for note in notes(table)), r"\begin{tabular}{l" + "r" * len(heads) + "}", r"\toprule"]
    lines += [" & ".join(["variant", *heads]) + r" \\", r"\midrule"]
    for line in table.lines:
        cells = [marks[cell.rank].format(escape(table.text(at, cell))) for at, cell in enumerate(line.cells)]
        lines.append(" & ".join([escape(line.name), *cells]) + r" \\")
    if table.bounds:
        lines.append(r"\midrule")
    for line in table.bounds:
        cells = [escape(table.text(at, cell)) for at, cell in enumerate(line.cells)]
        lines.append(" & ".join([rf"\emph{{{escape(line.name)}}}", *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


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
