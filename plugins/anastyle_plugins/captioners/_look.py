"""What can be measured on pixels: colours, brightness, texture, contrast, light. Lab is CIELAB under D65."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from anastyle_plugins.captioners._shape import Mask, eroded, labelled

Array = NDArray[np.float32]

COLOURS = (  # prototypes as sRGB; a pixel is called after the nearest in CIELAB. Warm light makes browns reddish
    ("black", (22, 18, 20)),
    ("dark brown", (72, 42, 34)),
    ("dark brown", (96, 40, 28)),
    ("brown", (118, 76, 56)),
    ("brown", (150, 82, 52)),
    ("reddish brown", (140, 62, 50)),
    ("reddish brown", (134, 38, 24)),
    ("light brown", (172, 124, 96)),
    ("greyish brown", (140, 112, 106)),
    ("greyish brown", (168, 128, 124)),
    ("greyish brown", (104, 82, 78)),
    ("beige", (222, 192, 164)),
    ("white", (246, 243, 238)),
    ("pale pink", (232, 198, 196)),
    ("pink", (224, 150, 146)),
    ("dusky pink", (206, 160, 162)),
    ("salmon pink", (205, 128, 104)),
    ("orange", (214, 120, 56)),
    ("red", (204, 58, 52)),
    ("dark red", (116, 20, 32)),
    ("magenta", (172, 32, 88)),
    ("purple", (112, 62, 128)),
    ("mauve", (174, 116, 152)),
    ("lilac", (196, 178, 206)),
    ("blue-grey", (104, 114, 142)),
    ("grey", (138, 132, 134)),
    ("dark grey", (72, 68, 70)),
    ("light grey", (198, 192, 192)),
    ("yellow", (224, 198, 96)),
    ("yellowish brown", (158, 128, 64)),
)
NAMES = list(dict.fromkeys(name for name, _ in COLOURS))
GREY = 6.0  # mean chroma below which a picture has no colour worth naming
FRAME = 18  # of 255: what is darker and reaches the border is no part of the field of view
SHADE = 42.0  # L below which surroundings count as unlit, if enough of them are lit
SHARE = 0.17  # of its pixels that a colour must have to be named


@dataclass(frozen=True)
class Look:
    """How a picture looks. Lightness L in [0, 100], contrasts in units of Lab."""

    colourless: bool
    colours: list[tuple[str, float]]  # of the lesion, or of all, with their shares
    ground: list[tuple[str, float]]  # of what surrounds it
    lightness: float  # of the lesion, or of all
    overall: float
    contrast: float  # between lesion and ring around it
    lighter: float  # lesion minus ring, in L
    echo: float  # grey level of the lesion over that of its ring
    behind: float  # grey level below the lesion over that beside it, at the same depth
    edge: float  # contrast close to the outline over contrast at large
    patchy: float  # spread of L between patches
    grain: float  # spread of L within patches
    corners: float  # by how much corners are darker than the rest, in L
    slope: tuple[float, float]  # rise of L across the frame, to the right and downwards
    glints: float  # share of the field that is a white reflection


def field_of_view(rgb: NDArray[np.uint8]) -> Mask:
    """Return what the device sees: black that reaches the frame's border is left out, if it is not too much."""
    brightest = Image.fromarray(rgb.max(axis=2)).filter(ImageFilter.MedianFilter(5))
    dark = np.asarray(brightest) < FRAME
    labels, _ = labelled(dark)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    sizes = np.bincount(labels.ravel())
    outside = [at for at in np.unique(rim) if at and sizes[at] > 0.004 * labels.size]
    seen = ~np.isin(labels, outside)
    return seen if seen.mean() > 0.3 else np.ones_like(seen)


def look_of(rgb: NDArray[np.uint8], mask: Mask | None, field: Mask) -> Look:
    """Measure a picture (H, W, 3): the lesion against its surroundings or, with an empty mask or none, all of it."""
    lab = lab_of(rgb)
    light = lab[..., 0]
    soft = ndimage.gaussian_filter(lab, (1.5, 1.5, 0))
    colourless = bool(np.median(np.hypot(soft[..., 1], soft[..., 2])[field]) < GREY)
    lesion = mask & field if mask is not None and (mask & field).any() else None
    inside = field if lesion is None else core(lesion)
    distance = None if lesion is None else signed_distance(lesion)
    ring = field if distance is None else ring_around(distance, field, inside)
    ground = field if lesion is None else field & eroded(~lesion, 4, border=1)
    ground = ground if ground.sum() > 50 else field
    difference = soft[inside].mean(axis=0) - soft[ring].mean(axis=0)
    grey = rgb.mean(axis=2)
    calm = ndimage.gaussian_filter(light, 2.0)
    patches = smoothed_within(light, inside)
    return Look(
        colourless=colourless,
        colours=named(soft[inside]),
        ground=named(soft[lit(light, ground)]),
        lightness=float(np.median(light[inside])),
        overall=float(light[field].mean()),
        contrast=float(np.linalg.norm(difference)),
        lighter=float(difference[0]),
        echo=float((grey[inside].mean() + 2) / (grey[ring].mean() + 2)),
        behind=1.0 if lesion is None else shadow(grey, lesion, field),
        edge=1.0 if distance is None else sharpness(soft, distance, field, difference),
        patchy=float(patches[inside].std()),
        grain=float((light - patches)[inside].std()),
        corners=darkened_corners(light, field, ground),
        slope=slope_of(calm, ground),
        glints=float(((light > 93) & (np.hypot(lab[..., 1], lab[..., 2]) < 14))[field].mean()),
    )


def lab_of(rgb: NDArray[np.uint8]) -> Array:
    """Return sRGB (..., 3) of 0 to 255 as CIELAB."""
    xyz = LINEAR[rgb] @ TO_XYZ  # relative to white
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


_LEVELS = np.arange(256) / 255
LINEAR = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)
_PRIMARIES = ((0.4124564, 0.2126729, 0.0193339), (0.3575761, 0.7151522, 0.1191920), (0.1804375, 0.0721750, 0.9503041))
TO_XYZ = (np.array(_PRIMARIES) / np.array([0.95047, 1.0, 1.08883])).astype(np.float32)
PROTOTYPES = lab_of(np.array([colour for _, colour in COLOURS], dtype=np.uint8))
NAME_OF = np.array([NAMES.index(name) for name, _ in COLOURS])  # of a prototype


def named(pixels: Array) -> list[tuple[str, float]]:
    """Return the names of colours (n, 3) in Lab that many of the pixels have, the most frequent first."""
    few = pixels[:: max(len(pixels) // 2500, 1)]
    weights = np.array([0.8, 1.0, 1.0])  # light and shade change L more than a thing's colour
    distances = (((few[:, None] - PROTOTYPES) * weights) ** 2).sum(axis=2)  # (n, colours)
    shares = np.bincount(NAME_OF[distances.argmin(axis=1)], minlength=len(NAMES)) / len(few)
    order = np.argsort(-shares, kind="stable")
    kept = [at for at in order[:3] if shares[at] >= SHARE] or [order[0]]
    return [(NAMES[at], float(shares[at])) for at in kept]


def core(lesion: Mask) -> Mask:
    """Return a lesion without its rim, where that leaves enough."""
    inner = eroded(lesion, 2, border=1)
    return inner if inner.sum() > 30 else lesion


def lit(light: Array, ground: Mask) -> Mask:
    """Return surroundings without what lies in the dark, whose colour nobody sees; all of them if little is left."""
    seen = ground & (light > SHADE)
    return seen if seen.sum() > 0.25 * ground.sum() else ground


def smoothed_within(light: Array, inside: Mask) -> Array:
    """Return lightness smoothed over what is inside alone, so that the surroundings do not shine in."""
    weight = ndimage.gaussian_filter(inside.astype(np.float32), 2.0)
    return ndimage.gaussian_filter(np.where(inside, light, 0), 2.0) / np.maximum(weight, 1e-6)


def signed_distance(lesion: Mask) -> Array:
    """Return the distance to the outline in pixels, negative inside."""
    outside = np.asarray(ndimage.distance_transform_edt(~lesion))
    inside = np.asarray(ndimage.distance_transform_edt(lesion))
    return (outside - inside).astype(np.float32)


def ring_around(distance: Array, field: Mask, inside: Mask) -> Mask:
    """Return the surroundings close to a lesion."""
    width = max(8.0, 0.6 * np.sqrt(inside.sum() / np.pi))
    ring = (distance > 3) & (distance <= 3 + width) & field
    return ring if ring.sum() > 30 else field & (distance > 0) if (field & (distance > 0)).any() else field


def sharpness(soft: Array, distance: Array, field: Mask, difference: Array) -> float:
    """Return the contrast across the outline as a share of the contrast between lesion and ring."""
    size = float(np.linalg.norm(difference))
    near_in, near_out = (distance >= -4) & (distance < -1) & field, (distance > 1) & (distance <= 4) & field
    if size < 1e-3 or not near_in.any() or not near_out.any():
        return 0.0
    along = soft @ (difference / size)
    return float((along[near_in].mean() - along[near_out].mean()) / size)


def shadow(grey: Array, lesion: Mask, field: Mask) -> float:
    """Return the brightness below a lesion relative to that on both sides at the same depth (ultrasound)."""
    rows, columns = np.nonzero(lesion)
    bottom, tall, wide = rows.max(), np.ptp(rows) + 1, np.ptp(columns) + 1
    left, right = int(np.quantile(columns, 0.2)), int(np.quantile(columns, 0.8))
    band = slice(bottom + 3, bottom + 3 + max(int(0.8 * tall), 14))
    reach = max(int(0.6 * wide), 12)
    first, last = columns.min(), columns.max()
    below = grey[band, left : right + 1][field[band, left : right + 1]]
    sides = [slice(max(first - reach, 0), max(first - 2, 0)), slice(last + 3, last + 3 + reach)]
    beside = np.concatenate([grey[band, side][field[band, side]] for side in sides])
    if min(below.size, beside.size) < 40:
        return 1.0
    return float((below.mean() + 4) / (beside.mean() + 4))


def darkened_corners(light: Array, field: Mask, ground: Mask) -> float:
    """Return by how much the frame's corners are darker than what lies around its middle, in L."""
    height, width = light.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    far = np.hypot(x, y)
    corner, middle = (far > 1.22) & field, (far > 0.35) & (far < 0.95) & ground
    if min(corner.sum(), middle.sum()) < 50:
        return 0.0
    return float(np.median(light[middle]) - np.median(light[corner]))


def slope_of(calm: Array, ground: Mask) -> tuple[float, float]:
    """Return how much lighter the surroundings get from left to right and from top to bottom, in L."""
    height, width = calm.shape
    rows, columns = np.nonzero(ground)
    step = max(len(rows) // 5000, 1)
    rows, columns = rows[::step], columns[::step]
    terms = np.stack([columns / width, rows / height, np.ones(len(rows))], axis=1)
    found, *_ = np.linalg.lstsq(terms, calm[rows, columns], rcond=None)
    return float(found[0]), float(found[1])
