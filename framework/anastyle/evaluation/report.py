"""The report of a study: one page of HTML that holds everything and asks the network for nothing.

What goes in is plain records, so that a page can be made, and tested, without training anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path

from anastyle.evaluation.charts import COLOURS, Cloud, Curve, Scatter, curve_plot, mark, merged, scatter_plot, tsne
from anastyle.evaluation.difference_tables import TITLE as DIFFERENCES
from anastyle.evaluation.difference_tables import Differences
from anastyle.evaluation.difference_tables import as_html as differences_html
from anastyle.evaluation.fairness import TITLE, WARNINGS
from anastyle.evaluation.fairness import Card as FairCard
from anastyle.evaluation.formats import notes
from anastyle.evaluation.overview import all_tables
from anastyle.evaluation.pictures import Grid, Picture, Strip, grid_html
from anastyle.evaluation.published import beside
from anastyle.evaluation.tables import (
    DASH,
    UNPAIRED,
    Cell,
    Line,
    Ranking,
    Row,
    Table,
    control_tables,
    cost_table,
    factor_table,
    main_table,
)
from anastyle.evaluation.utility.measured import utility_tables

__all__ = ["Cloud", "Curve", "Grid", "Picture", "Row", "Scatter", "Strip", "StudyReport", "tsne", "write_report"]


@dataclass
class StudyReport:
    """Everything a study has to show."""

    name: str
    description: str
    rows: list[Row]
    curves: list[Curve] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    tsne: list[Scatter] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    config_yaml: str = ""
    references: list[str] = field(default_factory=list)
    """Rows that stand beside the variants and are not ranked."""
    terms: FairCard = field(default_factory=FairCard)
    """On what terms the rows are compared."""
    copies: list[str] = field(default_factory=list)
    """What the memorisation gate says of each run."""
    ranking: Ranking = UNPAIRED
    differences: Differences | None = None


def write_report(report: StudyReport, folder: Path) -> Path:
    """Write report.html and return where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "report.html"
    file.write_text(page(report), encoding="utf-8")
    return file


def page(report: StudyReport) -> str:
    """Return the page."""
    sections = [
        warned(report),
        results(report),
        compared(report),
        factors(report),
        costs(report),
        equal(report),
        control(report),
        useful(report),
        copied(report),
        reported(report),
        *(pictures(report.grids)),
        curves(report),
        scatters(report),
        fine_print(report),
    ]
    return document(report.name, report.description, "Anastyle study", "".join(sections))


def document(name: str, description: str, kind: str, body: str) -> str:
    """Return a page of HTML around its sections."""
    style = resources.files("anastyle.evaluation").joinpath("templates/report.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)} · Anastyle</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header><p class="kicker">{escape(kind)}</p><h1>{escape(name)}</h1>'
        f"<p>{escape(description)}</p></header>\n"
        f"<main>\n{body}</main>\n"
        "<footer><strong>Not for clinical use.</strong> Images on this page are synthetic unless they are called real; "
        "none of them may inform a diagnosis.</footer>\n</body>\n</html>\n"
    )


def section(title: str, body: str, lead: str = "") -> str:
    """Return a section of the page, or nothing where it has no body."""
    if not body:
        return ""
    intro = f"<p>{escape(lead)}</p>" if lead else ""
    return f"<section><h2>{escape(title)}</h2>{intro}{body}</section>\n"


def results(report: StudyReport) -> str:
    """Return the table of variants by metrics."""
    table = main_table(report.rows, report.ranking)
    seeds = {row.seed for row in report.rows}
    spread = "mean ± standard deviation over seeds" if len(seeds) > 1 else "with its 95 % interval"
    lead = f"Each number {spread}; ↓\u00a0lower is better, ↑\u00a0higher is better."
    if not table.columns:
        return section("Results", "<p>No run of this study has reached its evaluation.</p>")
    return section("Results", as_html(table), lead)


def compared(report: StudyReport) -> str:
    """Return the paired differences of rows."""
    told = report.differences
    return section(DIFFERENCES, differences_html(told) if told else "")


def warned(report: StudyReport) -> str:
    """Return in what the rows are not on equal terms, before anything is said of who leads."""
    items = "".join(f"<li>{escape(text)}</li>" for text in report.terms.warnings)
    return section(WARNINGS, items and f'<ul class="notes">{items}</ul>', "Read the tables below with this in mind.")


def equal(report: StudyReport) -> str:
    """Return the terms of every row."""
    lead = (
        "What each row trains, sees and attends to, what its base had been taught to read before, how often captions "
        "were withheld in training, and how its guidance was found."
    )
    return section(TITLE, report.terms.html(), lead)


def as_html(table: Table) -> str:
    """Return a table as HTML, and under it what its marks mean."""
    heads = "".join(
        f'<th scope="col">{escape(shown.title)}<span class="arrow">{shown.arrow}</span></th>' for shown in table.columns
    )
    lines = [
        f'<tr{kind(line)}><th scope="row">{escape(line.name)}{images(line.cells)}</th>'
        + "".join(result(table, at, cell) for at, cell in enumerate(line.cells))
        + "</tr>"
        for line in table.lines
    ]
    return framed(heads, lines, bound_lines(table)) + marks_mean(table)


def kind(line: Line) -> str:
    """Return the attribute of a reference row."""
    return ' class="reference"' if line.reference else ""


def marks_mean(table: Table) -> str:
    """Return what a table's marks mean."""
    return f'<p class="marks">{escape(table.legend)}</p>' if table.legend else ""


def framed(heads: str, lines: Sequence[str], bounds: Sequence[str], kind: str = "", first: str = "variant") -> str:
    """Return a table of finished lines."""
    under = f'<tbody class="bounds">{"".join(bounds)}</tbody>' if bounds else ""
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr><th scope="col">{first}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody>{under}</table></div>"
    )


def images(cells: Sequence[Cell]) -> str:
    """Return how many images, and seeds, stand behind a line."""
    n, seeds = max((cell.n for cell in cells), default=0), max((cell.seeds for cell in cells), default=0)
    if not n:
        return ""
    return f'<span class="count">n = {n}' + (f" × {seeds} seeds" if seeds > 1 else "") + "</span>"


def result(table: Table, at: int, cell: Cell) -> str:
    """Return one cell: the number, bold where it is best, and under it the interval."""
    if cell.mean is None:
        return f'<td class="missing">{DASH}</td>'
    shown = table.columns[at]
    number = ("<b>{}</b>" if cell.best else "{}").format(shown.show(cell.mean)) + ("†" if cell.differs else "")
    spread = ""
    if cell.std is not None:
        spread = f"± {shown.show(cell.std)}"
    elif cell.low is not None and cell.high is not None:
        spread = f"{shown.show(cell.low)} – {shown.show(cell.high)}"
    return f'<td>{number}<span class="spread">{spread}</span></td>' if spread else f"<td>{number}</td>"


def bound_lines(table: Table) -> list[str]:
    """Return the lines of what real images get."""
    return [
        f'<tr><th scope="row">{escape(line.name)}</th>'
        + "".join(f"<td>{table.text(at, cell)}</td>" for at, cell in enumerate(line.cells))
        + "</tr>"
        for line in table.bounds
    ]


def factors(report: StudyReport) -> str:
    """Return the table of single factors, each with a bar between chance and ceiling."""
    table = factor_table(report.rows, report.ranking)
    if not table.columns:
        return ""
    heads = "".join(f'<th scope="col">{escape(shown.title)}</th>' for shown in table.columns)
    marks = [{line.name: line.cells[at].mean for line in table.bounds} for at in range(len(table.columns))]
    lines = [
        f'<tr{kind(line)}><th scope="row">{escape(line.name)}</th>'
        + "".join(barred(table, at, cell, list(marks[at].values())) for at, cell in enumerate(line.cells))
        + "</tr>"
        for line in table.lines
    ]
    lead = (
        "Share of images, in percent, in which an independent classifier sees the factor that the caption asked for. "
        "On each bar, the coloured tick is chance; the dark ticks are real images."
    )
    body = framed(heads, lines, bound_lines(table), "factors") + marks_mean(table)
    return section("What was asked, and what was painted", body, lead)


def costs(report: StudyReport) -> str:
    """Return what an image and a training cost."""
    table = cost_table(report.rows, report.ranking)
    lead = (
        "All that paints an image from its caption, at the study's own steps and guidance, on one device; and how long "
        "everything was trained that a row stands on."
    )
    return section("What it costs", as_html(table) if table.columns else "", lead)


def control(report: StudyReport) -> str:
    """Return the leakage matrix and what the codes hold."""
    lead = (
        "A text should move what it speaks of and nothing else: one of a caption's two texts is exchanged, the noise "
        "stays, and what changed is measured. Beside it: what linear probes read off each code, how far single "
        "numbers stand for single factors, and how often a caption finds its own image."
    )
    return section("Control and disentanglement", titled(control_tables(report.rows, report.ranking)), lead)


def titled(tables: Sequence[Table]) -> str:
    """Return tables under their titles."""
    return "".join(f"<h3>{escape(table.title)}</h3>{as_html(table)}" for table in tables)


def useful(report: StudyReport) -> str:
    """Return what synthetic images are worth to a classifier."""
    lead = (
        "A classifier is tested on real images after training on real ones, on synthetic ones, and on both. What "
        "counts is the gain over as many repeated real images of the same classes, and its interval."
    )
    return section("Clinical use", titled(utility_tables(report.rows, report.ranking)), lead)


def copied(report: StudyReport) -> str:
    """Return what the memorisation gate says."""
    lead = (
        "Generated images that are nearer to one training image than real held-out images are. anastyle export refuses "
        "a run that fails; the pairs that look most like copies lie beside its values, in memorisation.png."
    )
    items = "".join(f"<li>{escape(line)}</li>" for line in report.copies)
    return section("Copies of training images", items and f'<ul class="notes">{items}</ul>', lead)


def reported(report: StudyReport) -> str:
    """Return what the paper reports for the same rows."""
    own = list(dict.fromkeys(row.variant for row in report.rows if row.variant not in report.references))
    tables = beside(own) if own else []
    return section("What the paper reports", titled(tables), "; ".join(notes(table)[0] for table in tables))


def barred(table: Table, at: int, cell: Cell, marks: Sequence[float | None]) -> str:
    """Return a factor's cell: the number, and a bar with ticks at chance and at the ceilings."""
    if cell.mean is None:
        return f'<td class="missing">{DASH}</td>'
    number = table.columns[at].show(cell.mean)
    number = (f"<b>{number}</b>" if cell.best else number) + ("†" if cell.differs else "")
    spread = f"± {table.columns[at].show(cell.std)}" if cell.std is not None else ""
    ticks = "".join(
        f'<em class="{"" if place else "chance"}" style="left:{100 * share:.1f}%"></em>'
        for place, share in enumerate(marks)
        if share is not None
    )
    bar = f'<span class="bar"><i style="width:{100 * min(max(cell.mean, 0), 1):.1f}%"></i>{ticks}</span>'
    return f'<td>{number}{bar}<span class="spread">{spread}</span></td>' if spread else f"<td>{number}{bar}</td>"


def pictures(grids: Sequence[Grid]) -> list[str]:
    """Return a section for each grid."""
    return [
        section(grid.title, grid_html(grid), grid.note)
        for grid in grids
        if any(strip.pictures for strip in grid.strips)
    ]


def curves(report: StudyReport) -> str:
    """Return one plot for each stage."""
    variants = list(dict.fromkeys([*(row.variant for row in report.rows), *(curve.variant for curve in report.curves)]))
    colours = {variant: at for at, variant in enumerate(variants)}
    shown = {curve.variant for curve in report.curves}
    figures = []
    for stage in dict.fromkeys(curve.stage for curve in report.curves):
        lines = [curve for curve in report.curves if curve.stage == stage]
        shared = [names for names, _ in merged(lines) if len(names) > 1]
        note = (
            f" · one training for {', '.join(shared[0]) if len(shared[0]) < 3 else f'{len(shared[0])} variants'}"
            if shared
            else ""
        )
        plot = curve_plot(stage, lines, colours)
        figures.append(
            f"<figure><h3>{escape(stage)}</h3>{plot}<figcaption>steps{escape(note)}</figcaption></figure>"
            if plot
            else ""
        )
    if not any(figures):
        return ""
    keys = [(variant, f'<line x1="0" x2="20" y1="6" y2="6" stroke="var(--c{at % COLOURS})" stroke-width="2.4"/>', 20)
            for variant, at in colours.items() if variant in shown]  # fmt: skip
    return section(
        "Training",
        legend(keys) + plots(figures),
        "Weighted loss over steps; a line in the text's colour is shared by several variants.",
    )


def plots(figures: Sequence[str]) -> str:
    """Return figures side by side."""
    return f'<div class="plots{" few" if len(figures) < 3 else ""}">{"".join(figures)}</div>'


def legend(keys: Sequence[tuple[str, str, int]]) -> str:
    """Return a legend of (name, SVG drawing, its width)."""
    items = [
        f'<li><svg viewBox="0 0 {width} 12" style="width:{width}px">{drawing}</svg>{escape(name)}</li>'
        for name, drawing, width in keys
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def scatters(report: StudyReport) -> str:
    """Return the panels of points, before and after alignment."""
    if not report.tsne:
        return ""
    classes = list(dict.fromkeys(name for panel in report.tsne for cloud in panel.clouds for name in cloud.classes))
    colours = {name: at for at, name in enumerate(classes)}
    origins = list(dict.fromkeys(cloud.name for panel in report.tsne for cloud in panel.clouds))
    keys = [(name, mark(at, 6, 6, "var(--quiet)"), 12) for at, name in enumerate(origins)]
    keys += [
        (name, f'<rect x="1" y="1" width="10" height="10" rx="2" fill="var(--c{at % COLOURS})"/>', 12)
        for name, at in colours.items()
    ]
    figures = [
        f"<figure><h3>{escape(panel.title)}</h3>{scatter_plot(panel, colours)}</figure>" for panel in report.tsne
    ]
    lead = (
        "t-SNE of codes read off images and off their captions. "
        "Where alignment worked, marks of one colour and both kinds lie together."
    )
    return section("Alignment", legend(keys) + plots(figures), lead)


def fine_print(report: StudyReport) -> str:
    """Return how everything was measured, and the configuration."""
    found = [note for table in all_tables(report.rows, report.ranking) for note in notes(table)]
    items = []
    for note in found:
        titles, _, how = note.partition(": ")
        items.append(f"<li><b>{escape(titles)}</b> {escape(how)}</li>" if how else f"<li>{escape(note)}</li>")
    items += [f"<li>{escape(note)}</li>" for note in report.notes]
    config = (
        f"<details><summary>Configuration</summary><pre>{escape(report.config_yaml)}</pre></details>"
        if report.config_yaml
        else ""
    )
    body = (f'<ul class="notes">{"".join(items)}</ul>' if items else "") + config
    return section("How it was measured", body)
