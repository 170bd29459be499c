"""Drawings of a sweep: how the best came down, how each option matters, and the Pareto set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from anastyle.evaluation.charts import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    below,
    decades,
    height_of,
    levels,
    padded,
    plain,
    ticks,
)

SPREAD = 15  # from this ratio on, an axis is logarithmic


@dataclass(frozen=True)
class Point:
    """One trial in a drawing."""

    x: float
    y: float
    name: str
    marked: bool = False  # the best, or of the Pareto set


@dataclass(frozen=True)
class Drawing:
    """Points, and a line through some of them."""

    title: str
    under: str
    points: Sequence[Point]
    line: Sequence[tuple[float, float]] = ()
    names: Sequence[str] = field(default_factory=list)
    """Of the places 0, 1, ... on the x axis, where these are no numbers."""
    log_x: bool = False
    share: bool = False
    """Whether heights are of something that ends at 0 or 100 %, and never logarithmic."""


def draw(drawing: Drawing) -> str:
    """Return a drawing as a figure; nothing without points."""
    known = [point for point in drawing.points if np.isfinite([point.x, point.y]).all()]
    if not known:
        return ""
    heights = np.asarray([point.y for point in known])
    log_y = not drawing.share and bool(heights.min() > 0 and heights.max() / heights.min() > SPREAD)
    span_y = padded(heights, logarithmic=log_y)
    span_x = _span(drawing, known)
    parts = [_axes(drawing, span_x, span_y, log_y)]
    if len(drawing.line) > 1:
        path = "L".join(f"{_x(x, span_x, drawing.log_x):.1f} {_y(y, span_y, log_y):.1f}" for x, y in drawing.line)
        parts.append(f'<path d="M{path}" fill="none" stroke="var(--accent)"/>')
    for point in sorted(known, key=lambda point: point.marked):
        x, y = _x(point.x, span_x, drawing.log_x), _y(point.y, span_y, log_y)
        look = 'r="4.2" fill="var(--c1)"' if point.marked else 'r="3" fill="var(--c0)" fill-opacity="0.6"'
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}><title>{escape(point.name)}</title></circle>')
    label = escape(drawing.title)
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" class="curve">{"".join(parts)}</svg>'
    return f"<figure><h3>{label}</h3>{svg}<figcaption>{escape(drawing.under)}</figcaption></figure>"


def _span(drawing: Drawing, points: Sequence[Point]) -> tuple[float, float]:
    if drawing.names:
        return -0.5, len(drawing.names) - 0.5
    low, high = min(point.x for point in points), max(point.x for point in points)
    if drawing.log_x and low > 0:
        return low / 1.1, high * 1.1
    air = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    return low - air, high + air


def _axes(drawing: Drawing, span_x: tuple[float, float], span_y: tuple[float, float], log_y: bool) -> str:
    if drawing.names:
        places = list(enumerate(drawing.names))
    else:
        places = [(at, plain(at)) for at in (decades(*span_x) if drawing.log_x else ticks(*span_x, count=4))]
    words = [(_x(at, span_x, drawing.log_x), word) for at, word in places]
    return levels(span_y, logarithmic=log_y) + below(words)


def _x(value: float, span: tuple[float, float], logarithmic: bool) -> float:
    low, high = span
    share = np.log(value / low) / np.log(high / low) if logarithmic else (value - low) / (high - low)
    return LEFT + float(share) * (WIDTH - LEFT - RIGHT)


def _y(value: float, span: tuple[float, float], logarithmic: bool) -> float:
    return float(height_of(np.asarray(value), span, logarithmic=logarithmic))


def bars(shares: dict[str, float]) -> str:
    """Return shares of one as bars."""
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td>{100 * share:.0f} %'
        f'<span class="bar"><i style="width:{100 * share:.1f}%"></i></span></td></tr>'
        for name, share in shares.items()
    ]
    return f'<div class="scroll"><table class="factors"><tbody>{"".join(rows)}</tbody></table></div>' if rows else ""
