"""Drawings of a report: loss curves and t-SNE scatters as SVG, which take their colours from the page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

COLOURS = 8  # the page defines --c0 to --c7
WIDTH, HEIGHT = 340, 210  # of a curve's plot, in the SVG's own units
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 26  # its margins
MOST = 160  # points of a drawn line
SQUARE = 300  # side of a scatter
LIMIT = 400  # points that t-SNE is asked to lay out


@dataclass(frozen=True)
class Curve:
    """One variant's loss over one stage."""

    stage: str
    variant: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Cloud:
    """Some points of a scatter: where they come from, where they lie, which class each is of."""

    name: str
    points: ArrayLike  # (n, 2)
    classes: Sequence[str]


@dataclass(frozen=True)
class Scatter:
    """One panel of points."""

    title: str
    clouds: Sequence[Cloud]


def tsne(codes: Mapping[str, ArrayLike], *, seed: int = 0, perplexity: float = 30.0) -> dict[str, NDArray[np.float64]]:
    """Lay codes of several origins out in one plane, by their angles; the same input gives the same picture.

    Arguments:
        codes: arrays (n, F) or (n, N, D), all of one width; at most 400 points together.

    Returns:
        Points (n, 2) for each origin (van der Maaten and Hinton 2008).

    Raises:
        ValueError: the widths differ, a code is not finite, or there are fewer than four or more than 400 points.
    """
    from sklearn.manifold import TSNE  # wakes only here: it is slow to import

    flat = {name: np.asarray(code, np.float64).reshape(len(np.asarray(code)), -1) for name, code in codes.items()}
    widths, count = {code.shape[1] for code in flat.values()}, sum(map(len, flat.values()))
    if len(widths) != 1 or not 4 <= count <= LIMIT:
        raise ValueError(f"t-SNE takes 4 to {LIMIT} codes of one width; there are {count}, of widths {sorted(widths)}")
    stacked = np.concatenate(list(flat.values()))
    if not np.isfinite(stacked).all():
        raise ValueError("t-SNE: some codes are not finite")
    unit = stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)
    layout = TSNE(init="pca", perplexity=min(perplexity, (count - 1) / 3), random_state=seed, n_jobs=1)
    points = layout.fit_transform(unit).astype(np.float64)
    ends = np.cumsum([len(code) for code in flat.values()])[:-1]
    return dict(zip(flat, np.split(points, ends), strict=True))


def curve_plot(stage: str, curves: Sequence[Curve], colours: Mapping[str, int]) -> str:
    """Return one stage's plot, a line for each variant; variants that share the stage share one line."""
    lines = [(variants, *thinned(curve)) for variants, curve in merged(curves)]
    lines = [line for line in lines if len(line[1])]
    if not lines:
        return ""
    numbers = np.concatenate([values for _, _, values in lines])
    logarithmic = bool(numbers.min() > 0 and numbers.max() / numbers.min() > 15)
    span_x = (0.0, max(float(steps.max()) for _, steps, _ in lines) or 1.0)
    span_y = padded(numbers, logarithmic=logarithmic)
    parts = [axes(span_x, span_y, logarithmic=logarithmic)]
    for variants, steps, values in lines:
        x = LEFT + (steps - span_x[0]) / (span_x[1] - span_x[0]) * (WIDTH - LEFT - RIGHT)
        y = height_of(values, span_y, logarithmic=logarithmic)
        path = "M" + "L".join(f"{u:.1f} {v:.1f}" for u, v in zip(x, y, strict=True))
        colour = f"var(--c{colours[variants[0]] % COLOURS})" if len(variants) == 1 else "var(--ink)"
        name = escape(", ".join(variants))
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}"><title>{name}</title></path>')
    label = escape(f"{stage}: loss over steps")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" class="curve">{"".join(parts)}</svg>'


def merged(curves: Sequence[Curve]) -> list[tuple[list[str], Curve]]:
    """Join curves that are the same numbers, as those of a reused stage are."""
    found: list[tuple[list[str], Curve]] = []
    for curve in curves:
        same = next((names for names, other in found if list(other.values) == list(curve.values)), None)
        if same is None:
            found.append(([curve.variant], curve))
        elif curve.variant not in same:
            same.append(curve.variant)
    return found


def thinned(curve: Curve) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a curve's finite points, averaged down to at most 160."""
    steps, values = np.asarray(curve.steps, float), np.asarray(curve.values, float)
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    if len(steps) <= MOST:
        return steps, values
    mean_steps, mean_values = (np.asarray([part.mean() for part in np.array_split(x, MOST)]) for x in (steps, values))
    return mean_steps, mean_values


def padded(numbers: NDArray[Any], *, logarithmic: bool) -> tuple[float, float]:
    """Return the span of an axis that holds these numbers with some air."""
    low, high = float(numbers.min()), float(numbers.max())
    if logarithmic:
        return low / 1.15, high * 1.15
    air = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (min(low - air, 0.0) if 0 <= low < 0.3 * high else low - air), high + air


def height_of(values: NDArray[Any], span: tuple[float, float], *, logarithmic: bool) -> NDArray[Any]:
    """Return how far down the plot these values lie."""
    low, high = span
    share = np.log(values / low) / math.log(high / low) if logarithmic else (values - low) / (high - low)
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)


def axes(span_x: tuple[float, float], span_y: tuple[float, float], *, logarithmic: bool) -> str:
    """Return grid lines and their numbers."""
    width = (WIDTH - LEFT - RIGHT) / (span_x[1] - span_x[0])
    places = [(LEFT + (step - span_x[0]) * width, plain(step)) for step in ticks(*span_x, count=4)]
    return levels(span_y, logarithmic=logarithmic) + below(places)


def levels(span: tuple[float, float], *, logarithmic: bool) -> str:
    """Return horizontal grid lines and their numbers."""
    parts = []
    for level in decades(*span) if logarithmic else ticks(*span, count=4):
        y = float(height_of(np.asarray(level), span, logarithmic=logarithmic))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{plain(level)}</text>')
    return "".join(parts)


def below(places: Sequence[tuple[float, str]]) -> str:
    """Return words under a plot, each at its place from the left."""
    parts = []
    for x, word in places:
        anchor = "end" if x > WIDTH - RIGHT - 8 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{escape(word)}</text>')
    return "".join(parts)


def ticks(low: float, high: float, *, count: int) -> list[float]:
    """Return round numbers between two others, about ``count`` of them."""
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    gap = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [round(gap * k, 12) for k in range(math.ceil(low / gap), math.floor(high / gap) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis, at most six."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) <= 6:
            return found
    return found[:: math.ceil(len(found) / 6)]


def plain(number: float) -> str:
    """Return a number for an axis: 0.05, 2.5, 400, 12k."""
    if abs(number) >= 10_000:
        return f"{number / 1000:g}k"
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def scatter_plot(scatter: Scatter, colours: Mapping[str, int]) -> str:
    """Return one panel: discs for the first cloud, crosses for the second, rings for others; colour says the class."""
    clouds = [np.asarray(cloud.points, float).reshape(-1, 2) for cloud in scatter.clouds]
    everything = np.concatenate(clouds)
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = (SQUARE - 28) / max(float((high - low).max()), 1e-9)
    parts = []
    for at, (cloud, points) in enumerate(zip(scatter.clouds, clouds, strict=True)):
        placed = (points - (low + high) / 2) * scale * (1, -1) + SQUARE / 2
        for (x, y), name in zip(placed, cloud.classes, strict=True):
            parts.append(mark(at, float(x), float(y), f"var(--c{colours[name] % COLOURS})"))
    box, label = f"0 0 {SQUARE} {SQUARE}", escape(scatter.title)
    return f'<svg viewBox="{box}" role="img" aria-label="{label}" class="scatter">{"".join(parts)}</svg>'


def mark(kind: int, x: float, y: float, colour: str) -> str:
    """Return a point: a disc, a cross or a ring."""
    if kind == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.1" fill="{colour}" fill-opacity="0.72"/>'
    if kind == 1:
        path = f"M{x - 2.9:.1f} {y - 2.9:.1f}l5.8 5.8m0-5.8l-5.8 5.8"
        return f'<path d="{path}" stroke="{colour}" stroke-width="1.3" fill="none"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="none" stroke="{colour}" stroke-width="1.2"/>'
