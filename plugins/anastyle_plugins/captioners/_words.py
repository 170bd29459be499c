"""From measurements to words: fixed numbers where a word is absolute, quantiles of the training split where it is not.

A relative word ("small", "heterogeneous") splits the set at its 33rd and 67th percentile, but no further than the
bounds below allow, so that no set makes it false: nothing under 1.5 % of the frame is called large, say.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from anastyle_plugins.captioners._look import Look
from anastyle_plugins.captioners._shape import Shape

BOUNDS = {  # measurement: how low and how high its lower and its upper cut may lie
    "area": ((0.02, 0.09), (0.09, 0.32)),
    "roughness": ((0.03, 0.10), (0.12, 0.30)),
    "edge": ((0.25, 0.45), (0.50, 0.75)),
    "patchy": ((2.5, 9.0), (6.0, 16.0)),
    "grain": ((1.0, 4.0), (2.5, 7.0)),
    "whole_patchy": ((2.5, 20.0), (6.0, 30.0)),  # of pictures without a lesion
    "whole_grain": ((1.0, 5.0), (2.5, 9.0)),
    "contrast": ((7.0, 15.0), (18.0, 32.0)),
}
Cuts = dict[str, tuple[float, float]]
T = TypeVar("T")

SYMMETRIC, LOPSIDED = 0.87, 0.76  # overlap with the mirror image above and below which a form is called so
ROUND, OVAL = 0.80, 0.52  # minor over major axis
STANDING, LYING = 60.0, 30.0  # degrees of the major axis
FULL, NOTCHED = 0.90, 0.78  # share of the convex hull; below the first a form is lobed, below the second irregular
VIGNETTE, GLINTS = 14.0, 0.012
SLOPE, DEPTH = 16.0, 26.0  # rise of L across a picture called uneven; ultrasound always fades with depth
DARK, BRIGHT = 30.0, 66.0  # mean L of a picture called so
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
ROWS, COLUMNS = ("upper", "", "lower"), ("left", "", "right")


def spoken(label: str) -> str:
    """Return a class name as words; nothing where a record has no class."""
    return "" if label == "unlabelled" else " ".join(label.replace("_", " ").split())


def cuts_of(values: dict[str, list[float]]) -> Cuts:
    """Return where each measurement is cut in three, from what the training split holds of it."""
    cuts: Cuts = {}
    for name, ((low_least, low_most), (high_least, high_most)) in BOUNDS.items():
        found = [value for value in values.get(name, ()) if value >= 0] or [0.0]
        low, high = np.quantile(found, [1 / 3, 2 / 3])
        cuts[name] = float(np.clip(low, low_least, low_most)), float(np.clip(high, high_least, high_most))
    return cuts


def third(name: str, value: float, cuts: Cuts, words: Sequence[T]) -> T:
    """Return the first, second or third word, as a value lies below, between or above its cuts."""
    low, high = cuts[name]
    return words[0] if value < low else words[2] if value >= high else words[1]


def pick(key: str, what: str, options: Sequence[str]) -> str:
    """Choose one of several phrasings by the hash of a record's key: the same one every time."""
    digest = hashlib.sha256(f"{key}/{what}".encode()).digest()
    return options[int.from_bytes(digest[:4], "big") % len(options)]


def size(shape: Shape, cuts: Cuts) -> str:
    """Name a size; the ends of the scale are absolute."""
    if shape.area < 0.01:
        return "very small"
    if shape.area > 0.5:
        return "very large"
    return third("area", shape.area, cuts, ("small", "medium-sized", "large"))


def share(shape: Shape) -> str:
    """Say how much of the picture a lesion covers."""
    percent = 100 * shape.area
    step = 1 if percent < 10 else 5
    return f"about {max(1, round(percent / step) * step)} % of the image"


def side(centre: tuple[float, float]) -> str:
    """Name a place on a grid of three by three."""
    x, y = centre
    row, column = ROWS[min(int(y * 3), 2)], COLUMNS[min(int(x * 3), 2)]
    return f"{row} {column}".strip() or "centre"


def at(centre: tuple[float, float]) -> str:
    """Say where something lies."""
    words = {"upper": "at the top", "lower": "at the bottom", "left": "on the left", "right": "on the right"}
    name = side(centre)
    return words.get(name, f"in the {name}")


def where(shape: Shape) -> str:
    """Say where a lesion lies, or its parts, or that it fills the frame."""
    if min(shape.extent) > 0.8:
        return "filling most of the frame"
    places = list(dict.fromkeys(at(centre) for centre in shape.centres[:3]))
    return " and ".join(places[:2]) if len(shape.centres) <= 2 else places[0]


def form(shape: Shape) -> str:
    """Name a form; what fills the frame shows none."""
    if shape.cut and shape.area > 0.5:
        return "broad"
    if shape.solidity < NOTCHED:
        return "irregularly shaped"
    if shape.solidity < FULL:
        return "lobed" if shape.ratio >= OVAL else "elongated, lobed"
    return "round" if shape.ratio >= ROUND else "oval" if shape.ratio >= OVAL else "elongated"


def lie(shape: Shape) -> str:
    """Say which way a long form points, or nothing."""
    if shape.ratio >= ROUND or shape.cut:
        return ""
    if LYING < shape.angle < STANDING:
        return "lying obliquely"
    return "taller than wide" if shape.angle >= STANDING else "wider than tall"


def symmetry(shape: Shape) -> str:
    """Say how a form compares with its mirror image; nothing where the frame cuts it off."""
    better, worse = shape.mirror
    if shape.cut:
        return ""
    if worse >= SYMMETRIC:
        return "symmetric"
    return "asymmetric" if better < LOPSIDED or worse < LOPSIDED - 0.06 else "slightly asymmetric"


def runs(shape: Shape, cuts: Cuts) -> Sequence[str]:
    """Name how an outline runs, in words that mean the same; nothing where a part is too small to tell."""
    words = (("smooth", "even"), ("slightly irregular", "slightly uneven"), ("irregular", "jagged"))
    return () if shape.roughness < 0 else third("roughness", shape.roughness, cuts, words)


def edge(look: Look, cuts: Cuts) -> str:
    """Name how sharp an outline is."""
    return (
        "ill-defined" if look.contrast < 5 else third("edge", look.edge, cuts, ("ill-defined", "fairly clear", "sharp"))
    )


def border(shape: Shape, look: Look, cuts: Cuts, key: str) -> str:
    """Name how an outline runs, and how sharp it is."""
    words = runs(shape, cuts)
    return f"{pick(key, 'runs', words)}, {edge(look, cuts)}" if words else edge(look, cuts)


def reach(shape: Shape) -> str:
    """Say at which sides the frame cuts a lesion off, or nothing."""
    edge = "edges" if len(shape.cut) > 1 else "edge"
    return f"cut off at the {' and '.join(shape.cut[:2])} {edge}" if shape.cut else ""


def colours(found: list[tuple[str, float]]) -> str:
    """Name one to three colours, the most frequent first."""
    names = [name for name, _ in found]
    if len(names) == 1:
        return names[0] if found[0][1] < 0.85 else f"evenly {names[0]}"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def greys(lightness: float) -> str:
    """Name a lightness of a picture without colour."""
    steps = ((12, "black"), (30, "dark grey"), (52, "mid-grey"), (82, "light grey"))
    return next((word for most, word in steps if lightness < most), "near white")


def texture(look: Look, cuts: Cuts, whole: bool) -> tuple[str, str]:
    """Name how even a surface is, and how fine its grain; pictures without a lesion are compared with their like."""
    of = "whole_" if whole else ""
    patches = third(f"{of}patchy", look.patchy, cuts, ("homogeneous", "slightly varied", "heterogeneous"))
    return patches, third(f"{of}grain", look.grain, cuts, ("smooth", "finely grained", "grainy"))


def contrast(look: Look, cuts: Cuts) -> str:
    """Say how a lesion stands out."""
    return third("contrast", look.contrast, cuts, ("low contrast", "moderate contrast", "strong contrast"))


def echo(look: Look) -> str:
    """Name the echogenicity of a lesion, against the tissue around it."""
    if look.echo < 0.38 and look.patchy < 7.0 and look.lightness < 14:
        return "anechoic"
    steps = ((0.45, "markedly hypoechoic"), (0.80, "hypoechoic"), (1.15, "isoechoic"))
    return next((word for most, word in steps if look.echo < most), "hyperechoic")


def behind(look: Look) -> str:
    """Name what a lesion does to the ultrasound behind it."""
    if look.behind < 0.62:
        return "posterior shadowing"
    return "posterior enhancement" if look.behind > 1.5 else "no marked posterior change"


def light(look: Look) -> str:
    """Say how a picture is lit, in one to three phrases."""
    found = []
    if look.overall < DARK:
        found.append("a dark image")
    elif look.overall > BRIGHT:
        found.append("a bright image")
    across, down = look.slope
    if look.corners > VIGNETTE and not look.colourless:  # an ultrasound image has no lens
        found.append("darkened corners")
    elif max(abs(across), abs(down)) > (DEPTH if look.colourless else SLOPE):
        sideways = ("left", "right")[across > 0] if abs(across) >= abs(down) else ("top", "bottom")[down > 0]
        found.append(f"brighter towards the {sideways}")
    if look.glints > GLINTS and not look.colourless:
        found.append("bright reflections")
    return ", ".join(found) or "even lighting"
