"""What can be measured on a mask: how large, where, of what form, how its outline runs. Arrays are (H, W)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

Mask = NDArray[np.bool_]

CRUMB = 0.05  # components smaller than this share of the largest are no parts of their own
SMALLEST = 12  # pixels of a component that is measured
ROUGH = 350  # pixels of a component whose outline is judged


@dataclass(frozen=True)
class Shape:
    """A lesion's form. Lengths are shares of the frame, angles in degrees."""

    area: float  # share of the field of view
    centres: list[tuple[float, float]]  # (x, y) in [0, 1] of each part, the largest first
    ratio: float  # minor over major axis of the ellipse with the same second moments
    angle: float  # of the major axis: 0 lies flat, 90 stands
    solidity: float  # share of its convex hull that it fills
    roughness: float  # how much longer the outline is than the same outline smoothed
    mirror: tuple[float, float]  # overlap with its mirror image about the better and the worse principal axis
    extent: tuple[float, float]  # width and height, as shares of the frame's
    cut: list[str]  # sides of the frame it reaches


def labelled(mask: Mask) -> tuple[NDArray[np.intp], int]:
    """Number the connected parts of a mask, diagonal neighbours joined; 0 is the rest."""
    found: Any = ndimage.label(mask, structure=np.ones((3, 3)))
    return found


def eroded(mask: Mask, times: int = 1, *, border: int = 0) -> Mask:
    """Return a mask without its rim."""
    return np.asarray(ndimage.binary_erosion(mask, iterations=times, border_value=border), dtype=bool)


def parts_of(mask: Mask) -> list[Mask]:
    """Return the connected parts of a mask, the largest first, crumbs left out."""
    labels, count = labelled(mask)
    sizes = np.bincount(labels.ravel())[1:]
    if count == 0 or sizes.max() < SMALLEST:
        return []
    order = np.argsort(-sizes, kind="stable")
    return [labels == at + 1 for at in order if sizes[at] >= max(SMALLEST, CRUMB * sizes[order[0]])]


def shape_of(mask: Mask, field: Mask) -> Shape | None:
    """Measure a mask within its field of view; None where it has no part worth the name."""
    parts = parts_of(mask)
    if not parts:
        return None
    height, width = mask.shape
    centres = [np.argwhere(part).mean(axis=0) for part in parts]  # (row, column) each
    largest: Mask = np.asarray(ndimage.binary_fill_holes(parts[0]), dtype=bool)
    points = np.argwhere(largest)[:, ::-1].astype(float)  # (n, 2) as x, y
    offsets = points - points.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(offsets.T) + np.eye(2) / 12)
    major = axes[:, 1]
    angle = abs(np.degrees(np.arctan2(major[1], major[0])))
    spans = np.ptp(points, axis=0) + 1
    return Shape(
        area=float(sum(part.sum() for part in parts) / max(field.sum(), 1)),
        centres=[(float(x + 0.5) / width, float(y + 0.5) / height) for y, x in centres],
        ratio=float(np.sqrt(values[0] / values[1])),
        angle=float(min(angle, 180 - angle)),
        solidity=solidity(smoothed(largest)),
        roughness=roughness(largest),
        mirror=mirrored(largest, offsets, axes),
        extent=(float(spans[0] / width), float(spans[1] / height)),
        cut=sides_reached(largest),
    )


def smoothed(part: Mask) -> Mask:
    """Return a part without the stairs that resizing leaves."""
    soft = ndimage.gaussian_filter(part.astype(np.float32), 1.5, mode="nearest") > 0.5
    return soft if soft.any() else part


def solidity(part: Mask) -> float:
    """Return the share of its convex hull that a part fills; pixels are squares, not points."""
    rows, columns = np.nonzero(part & ~eroded(part))
    corners = np.concatenate([np.stack([columns + dx, rows + dy], 1) for dx in (0, 1) for dy in (0, 1)])
    try:
        return float(min(part.sum() / ConvexHull(corners).volume, 1.0))
    except QhullError:
        return 1.0


def perimeter(part: Mask, blur: float) -> float:
    """Return the length of an outline, details finer than ``blur`` pixels ironed out (total variation)."""
    soft = ndimage.gaussian_filter(np.pad(part, 8, mode="edge").astype(np.float32), blur, mode="nearest")
    down, across = np.gradient(soft)
    return float(np.hypot(down, across)[8:-8, 8:-8].sum())


def roughness(part: Mask) -> float:
    """Return by how much the outline is longer than when it is smoothed on the scale of the part, 0 for a disc.

    Of a part of few pixels the stairs of the grid would be measured: -1.
    """
    if part.sum() < ROUGH:
        return -1.0
    scale = max(0.16 * np.sqrt(part.sum() / np.pi), 3.0)
    return max(perimeter(part, 1.2) / max(perimeter(part, scale), 1e-6) - 1, 0.0)


def mirrored(part: Mask, offsets: NDArray, axes: NDArray) -> tuple[float, float]:
    """Return the overlap (intersection over union) of a part with its mirror images, the better one first."""
    centre = np.argwhere(part)[:, ::-1].mean(axis=0)
    overlaps = []
    for at in (0, 1):
        normal = axes[:, at]
        flipped = offsets - 2 * np.outer(offsets @ normal, normal) + centre
        columns, rows = np.rint(flipped).astype(int).T
        inside = (columns >= 0) & (rows >= 0) & (columns < part.shape[1]) & (rows < part.shape[0])
        shared = part[rows[inside], columns[inside]].sum()
        overlaps.append(float(shared / (2 * len(offsets) - shared)))
    return max(overlaps), min(overlaps)


def sides_reached(part: Mask) -> list[str]:
    """Name the sides of the frame along which a part is cut off: it runs along a tenth of its own length there."""
    least = max(3.0, 0.25 * np.sqrt(part.sum()))
    sides = {"upper": part[0], "lower": part[-1], "left": part[:, 0], "right": part[:, -1]}
    return [name for name, line in sides.items() if line.sum() >= least]
