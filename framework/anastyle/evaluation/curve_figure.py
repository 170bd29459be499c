"""The figure of a curve: a line a row over the time it was trained, named at its end, intervals as bars."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from anastyle.evaluation.tables import Column

if TYPE_CHECKING:
    from anastyle.evaluation.curve import Line

WIDTH, HEIGHT, DPI = 8.4, 4.8, 200  # inches; a README shows about 830 pixels
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#7a5195", "#e69f00", "#444444")  # Okabe and Ito 2008
GREYS = ("#777777", "#333333", "#a0a0a0")  # of references
APART = 0.012  # of the axis in its logarithm, by which rows stand beside each other at one budget
SPACE = 0.052  # of the axis's height, that a name takes
DASHED = (0, (5, 3))


class End(NamedTuple):
    """Where a row's line ends."""

    height: float
    name: str
    colour: str


def draw(lines: "list[Line]", shown: Column, out: Path) -> None:
    """Write the figure; its suffix says in which format."""
    from matplotlib.figure import Figure  # no pyplot: nothing looks for a screen

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    colours = colours_of(lines)
    trained = [line for line in lines if not line.level]
    unit = unit_of(trained)
    ends = [trace(axes, line, (at, len(trained)), unit, shown, colours[line.row]) for at, line in enumerate(trained)]
    for line in lines:
        if line.level:
            ends.append(End(line.points[-1].mean * shown.scale, line.row, colours[line.row]))
            axes.axhline(ends[-1].height, color=ends[-1].colour, linestyle=DASHED, linewidth=1.2, zorder=1)
    budgets = sorted({time(point, unit) for line in trained for point in line.points})
    scale_axes(axes, budgets, unit, shown)
    name_lines(axes, ends)
    figure.savefig(out, metadata={"Software": None} if out.suffix.lower() == ".png" else None)


def colours_of(lines: "list[Line]") -> dict[str, str]:
    """Give every row a colour, and references a grey."""
    given = {}
    for reference, palette in ((False, COLOURS), (True, GREYS)):
        rows = [line.row for line in lines if line.reference == reference]
        given |= {row: palette[at % len(palette)] for at, row in enumerate(rows)}
    return given


def unit_of(lines: "list[Line]") -> str:
    """Return what the axis counts: steps where every row takes as many images a step, else images."""
    sizes = {point.budget.images / point.budget.steps for line in lines for point in line.points if point.budget.steps}
    return f"steps of {sizes.pop():g} images" if len(sizes) == 1 else "images seen"


def time(point: Any, unit: str) -> float:
    """Return where a point stands on the axis."""
    return point.budget.images if unit == "images seen" else point.budget.steps


def trace(axes: Any, line: "Line", place: tuple[int, int], unit: str, shown: Column, colour: str) -> End:
    """Draw one row, the first of ``place`` among the second, and return where it ends."""
    at, count = place
    style, width = (DASHED, 1.2) if line.reference else ("-", 1.8)
    points = [point for point in line.points if point.budget.steps]
    aside = float(np.exp(2 * APART * (at - (count - 1) / 2)))
    x = [time(point, unit) * aside for point in points]
    y = [point.mean * shown.scale for point in points]
    axes.plot(x, y, color=colour, linestyle=style, linewidth=width, marker="o", markersize=4)
    for where, point in zip(x, points, strict=True):
        if point.low is not None and point.high is not None:
            axes.plot([where] * 2, [point.low * shown.scale, point.high * shown.scale], color=colour, linewidth=1.2,
                      alpha=0.75, solid_capstyle="butt", marker="_", markersize=6)  # fmt: skip
    return End(y[-1], line.row, colour)


def scale_axes(axes: Any, budgets: list[float], unit: str, shown: Column) -> None:
    """Name the axes; the time is logarithmic, and its marks are the budgets themselves."""
    if budgets:
        axes.set_xscale("log")
        axes.set_xlim(budgets[0] / 1.2, budgets[-1] * 1.2)
        axes.set_xticks(budgets, [f"{budget:,.0f}" for budget in budgets])
        axes.minorticks_off()
    axes.set_xlabel(f"training, {unit} (logarithmic)")
    axes.set_ylabel(f"{shown.title} {'(less is better)' if shown.lower_is_better else ''}".strip())
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def name_lines(axes: Any, ends: list[End]) -> None:
    """Write each row's name at the right of its end, moved apart where they would touch."""
    low, high = axes.get_ylim()
    ordered = sorted(ends)
    places = spread([(end.height - low) / (high - low) for end in ordered], SPACE)
    for place, end in zip(places, ordered, strict=True):
        axes.annotate(end.name, (1, place), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
                      color=end.colour, fontsize=9, va="center", annotation_clip=False)  # fmt: skip


def spread(places: list[float], apart: float) -> list[float]:
    """Return heights in their order, at least so far apart, each group of neighbours around its own middle."""
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while (
            len(groups) > 1
            and middle(groups[-1]) - middle(groups[-2]) < apart * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            last = groups.pop()
            groups[-1] += last
    return [middle(group) + apart * (at - (len(group) - 1) / 2) for group in groups for at in range(len(group))]


def middle(group: list[float]) -> float:
    """Return the mean height of a group."""
    return sum(group) / len(group)
