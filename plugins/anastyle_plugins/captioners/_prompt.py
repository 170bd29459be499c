"""What a vision-language model is asked, how its answer is read, and when it is not believed."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from anastyle_plugins.captioners._shape import Shape
from anastyle_plugins.captioners._words import spoken

ATTRIBUTES = {  # modality: what anatomy and what style is asked for (after VG-MedGen for skin, Med-Art for endoscopy)
    "dermoscopy": (
        "symmetry, border, shape, size, location",
        "specific color, texture, dermoscopic patterns, lighting",
    ),
    "endoscopy": (
        "shape, size, location, border",
        "specific color, surface texture, surrounding mucosa, bleeding condition, lighting",
    ),
    "ultrasound": (
        "shape, orientation, margin, size, location",
        "echogenicity, echotexture, posterior features, contrast, surrounding tissue",
    ),
    "general": ("shape, symmetry, border, size, location", "color or brightness, texture, contrast, lighting"),
}
PICTURES = {"dermoscopy": "dermoscopic image", "endoscopy": "endoscopic image", "ultrasound": "ultrasound image"}
QUESTION = (
    "This is a {picture}{of}. Describe what is seen, in at most {words} words and exactly two lines:\n"
    "Anatomy: one sentence on {anatomy}.\n"
    "Style: one sentence on {style}.\n"
    "State what the image shows; do not repeat the list, name no diagnosis, and add nothing else."
)
FIELD = r"^\W*{name}\W*:\W*(.+?)\W*$"
LESION = r"(?:lesion|mass|polyp|tumou?r|nodule|abnormalit\w+|growth|finding)s?"
NONE = re.compile(
    rf"\b(?:no|without(?: an?y?)?)\s+(?:\w+\s+){{0,3}}{LESION}\b|\babsence of\b|\bnothing abnormal\b", re.I
)
ONE = re.compile(rf"\b(?:a|an|the|one|two|several|multiple)\s+(?:[\w-]+,?\s+){{0,4}}{LESION}\b", re.I)
LARGE, SMALL = re.compile(r"\b(?:large|huge|big|extensive)\b", re.I), re.compile(r"\b(?:small|tiny|minute)\b", re.I)
SEVERAL = re.compile(r"\b(?:two|three|four|several|multiple|many)\s+(?:\w+\s+){0,2}" + LESION, re.I)
TINY, HUGE = 0.02, 0.40  # shares of the frame that nobody calls large, or small
OPPOSITE = {"left": (0, 1), "right": (0, 0), "upper": (1, 1), "top": (1, 1), "lower": (1, 0), "bottom": (1, 0)}


@dataclass(frozen=True)
class Truth:
    """What is known of a record whatever the model says."""

    label: str
    classes: Iterable[str]  # all of the set
    masked: bool  # is there a mask?
    shape: Shape | None  # None: the mask is empty


@dataclass(frozen=True)
class Lists:
    """The attributes of the two axes."""

    anatomy: str
    style: str


def question(lists: Lists, picture: str, label: str, words: int) -> str:
    """Return the prompt for one image."""
    of = f" of {spoken(label)}" if spoken(label) else ""
    return QUESTION.format(picture=picture, of=of, words=words, anatomy=lists.anatomy, style=lists.style)


def parse(answer: str) -> dict[str, str]:
    """Return the two labelled lines of an answer; a field that is not there is empty."""
    found = {}
    for name in ("anatomy", "style"):
        line = re.search(FIELD.format(name=name), answer, re.I | re.M)
        found[name] = " ".join(line[1].split()) if line else ""
    return found


def fault(fields: dict[str, str], lists: Lists, truth: Truth, words: int) -> str:
    """Say why an answer is not believed, or nothing."""
    for name, text in fields.items():
        if not text:
            return f"no line '{name.capitalize()}:' in the answer"
        if echoes(text, getattr(lists, name)):
            return f"{name} repeats the attribute list"
    whole = f"{fields['anatomy']}. {fields['style']}"
    count = len(whole.split())
    if count > words:
        return f"over {words} words"
    if other := other_class(whole, truth):
        return f"names another class ({other})"
    return contradiction(fields["anatomy"], truth) if truth.masked else ""


def echoes(text: str, attributes: str) -> bool:
    """Say whether a text is hardly more than the list of attributes it was to fill in."""
    if attributes.lower() in text.lower():
        return True
    asked = set(re.findall(r"[a-z]+", attributes.lower()))
    said = [word for word in re.findall(r"[a-z]+", text.lower()) if word not in ("a", "an", "the", "and", "of", "its")]
    return bool(said) and sum(word in asked for word in said) / len(said) > 0.6


def other_class(text: str, truth: Truth) -> str:
    """Return the name of a class that is not the record's and that a text mentions."""
    own = spoken(truth.label).lower()
    for name in truth.classes:
        words = spoken(name).lower()
        if len(words) > 3 and words not in own and re.search(rf"\b{re.escape(words)}\b", text.lower()):
            return words
    return ""


def contradiction(anatomy: str, truth: Truth) -> str:
    """Say what of an anatomy the mask refutes, or nothing."""
    shape, denied = truth.shape, NONE.search(anatomy)
    if shape is None:
        return "" if denied or not ONE.search(anatomy) else "speaks of a lesion, and the mask is empty"
    if denied:
        return "denies a lesion, and there is a mask"
    if LARGE.search(anatomy) and shape.area < TINY:
        return f"calls {100 * shape.area:.1f} % of the frame large"
    if SMALL.search(anatomy) and shape.area > HUGE:
        return f"calls {100 * shape.area:.0f} % of the frame small"
    if SEVERAL.search(anatomy) and len(shape.centres) == 1:
        return "counts several, and the mask has one part"
    return misplaced(anatomy, shape)


def misplaced(anatomy: str, shape: Shape) -> str:
    """Say that a place is on the other side of the frame, or nothing."""
    for word, (axis, end) in OPPOSITE.items():
        far = all(abs(centre[axis] - end) < 1 / 3 for centre in shape.centres)
        if far and re.search(rf"\b(?:in|on|at|to|towards?|near)\s+(?:the\s+)?(?:[\w-]+\s+)?{word}\b", anatomy, re.I):
            return f"places it {word}, and the mask is on the other side"
    return ""
