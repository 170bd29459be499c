"""Captions measured from mask and image: no network, no model, no weights.

Anatomy (place, size, form, symmetry, outline) is read off the mask; style (colours, echo, texture, contrast, light) off
the pixels. A record with an empty mask has "no lesion"; one without any mask is described as a whole, and its sources
say so. Relative words come from the training split's own percentiles, which the table's header keeps.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np

from anastyle import CAPTIONERS, Caption, Captioned, Captioner, Record
from anastyle.data.images import shrink
from anastyle_plugins.captioners import _words as say
from anastyle_plugins.captioners._look import Look, field_of_view, look_of
from anastyle_plugins.captioners._shape import Shape, shape_of
from anastyle_plugins.datasets.ham10000 import DIAGNOSES

LONGEST = 256  # pixels that everything is measured at, so that words mean the same at any resolution
FITTED = 2000  # training records that the percentiles are taken of
GREY_SHARE = 0.98  # of pixels whose channels agree, in a picture without colour

HINTS = {  # a modality, by words in a set's own captions and labels
    "ultrasound": r"ultraso|sonogra|echograph",
    "dermoscopy": r"dermo?scop|dermatoscop|melanoma|naevus|nevus",
    "endoscopy": r"polyp|endoscop|colonoscop|gastroscop|mucosa",
    "x-ray": r"x-?ray|radiograph",
    "mri": r"\bmri\b|magnetic resonance",
    "ct": r"\bct\b|computed tomograph",
}
SPOKEN = {  # modality: picture, lesion, what is around it
    "ultrasound": ("ultrasound image", "mass", "tissue"),
    "dermoscopy": ("dermoscopic image", "lesion", "skin"),
    "endoscopy": ("endoscopic image", "polyp", "mucosa"),
    "x-ray": ("X-ray image", "finding", "tissue"),
    "mri": ("MRI image", "lesion", "tissue"),
    "ct": ("CT image", "lesion", "tissue"),
    "general": ("medical image", "lesion", "background"),
}
CODES = {code: say.spoken(name) for code, name in DIAGNOSES.items()}  # what labels that are codes stand for
ANATOMY = (
    "{a_size} {form} {noun} {where}{lie}, {share}, with {a_border} outline{symmetry}{reach}",
    "one {form} {noun}, {size} ({share}), {where}{lie}; its outline is {border}{symmetry}{reach}",
    "{where}, {a_size} {form} {noun} of {share}{lie}; {border} margins{symmetry}{reach}",
    "{a_form} {noun} {where}{lie}: {size}, {share}, {border} border{symmetry}{reach}",
)
SEVERAL = (
    "{number} {nouns} {where}, together {size} ({share}); the largest is {form}{lie}, with {a_border} outline{reach}",
    "{number} separate {nouns}, {where}, {size} in all ({share}); "
    "the largest one {form}{lie}, its margins {border}{reach}",
)
COLOURED = (
    "{colours} against {ground} {around}, {contrast}; {texture}; {light}",
    "the {noun} is {colours}, {texture}, on {ground} {around} with {contrast}; {light}",
    "{texture} surface, {colours}, in {contrast} to {ground} {around}; {light}",
)
ECHO = (
    "{echo} to the surrounding tissue, {texture} echotexture, {behind}; {contrast}, {light}",
    "{an_echo} {noun} with {texture} echoes and {behind}; {contrast}, {light}",
    "{texture} interior, {echo}, {behind}; {contrast} to the tissue around; {light}",
)
GREY = (
    "{grey}, {relation} than its surroundings, {contrast}; {texture}; {light}",
    "{texture} and {grey}, {relation} than what is around it with {contrast}; {light}",
)
WHOLE = ("{colours} {around}, {texture}; {light}", "{texture} {around} in {colours}; {light}")
TEXT = (
    "{Picture}{label}: {anatomy}. {Style}.",
    "{Picture}{label}. {Anatomy}; {style}.",
    "{Picture}{label}, showing {anatomy}. {Style}.",
)


@CAPTIONERS.register
class Template(Captioner):
    """Measures, and fills the measurements into one of several phrasings by the hash of the record's key."""

    version = 1

    @dataclass
    class Config(Captioner.Config):
        """What a set's pictures are of; the set's own captions tell it, where nothing is said."""

        modality: Literal["auto", "ultrasound", "dermoscopy", "endoscopy", "x-ray", "mri", "ct", "general"] = "auto"
        picture: str = ""
        """What a picture is called, "breast ultrasound image" say; the modality's own word if empty."""
        noun: str = ""
        """What a lesion is called; the modality's own word if empty."""
        say_label: bool = True
        """Whether the text names the class; the fields never do."""
        names: dict[str, str] = field(default_factory=dict)
        """What to call a class, by its label; codes of HAM10000 are known."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.modality, self.cuts = "general", say.cuts_of({})
        self._known: dict[str, tuple[Shape | None, Look]] = {}  # what ``fit`` measured is not measured again

    def fit(self, records: Callable[[], Iterator[Record]], keys: list[str]) -> dict[str, Any]:
        """Find out the modality and the percentiles of the training split."""
        hints: Counter[str] = Counter()
        values: dict[str, list[float]] = {name: [] for name in say.BOUNDS}
        for record in islice(records(), FITTED):
            hints.update(hinted(record))
            shape, look = self._known[record.key] = measured(record)
            found = {f"whole_{name}": value for name, value in vars(look).items()}
            if shape is not None:
                found = {**vars(look), **vars(shape)}
            for name in values.keys() & found.keys():
                values[name].append(found[name])
        modality = self.config.modality
        if modality == "auto":
            modality = hints.most_common(1)[0][0] if hints else "general"
        return {"modality": modality, "cuts": say.cuts_of(values), "records": len(self._known)}

    def restore(self, fitted: dict[str, Any]) -> None:
        """Take back modality and percentiles."""
        self.modality = fitted["modality"]
        self.cuts = {name: (low, high) for name, (low, high) in fitted["cuts"].items()}

    def caption(self, records: list[Record]) -> list[Captioned]:
        """Measure and describe each record."""
        return [self._one(record) for record in records]

    def attributes(self, record: Record) -> dict[str, dict[str, str]]:
        """Measure a record with a mask."""
        if record.mask is None:
            return {}
        shape, look = measured(record)
        if shape is None:
            return {"anatomy": {"lesions": "none"}, "style": {}}
        patches, grain = say.texture(look, self.cuts, whole=False)
        anatomy = {
            "lesions": "one" if len(shape.centres) == 1 else "several",
            "place": say.where(shape),
            "size": say.size(shape, self.cuts),
            "form": say.form(shape),
            "symmetry": say.symmetry(shape),
            "outline": next(iter(say.runs(shape, self.cuts)), ""),
            "edge": say.edge(look, self.cuts),
        }
        style = {
            "colour": say.greys(look.lightness) if look.colourless else look.colours[0][0],
            "contrast": say.contrast(look, self.cuts),
            "patches": patches,
            "grain": grain,
            "light": say.light(look),
        }
        if self.modality == "ultrasound":
            style |= {"echo": say.echo(look), "behind": say.behind(look)}
        return {"anatomy": {name: word for name, word in anatomy.items() if word}, "style": style}

    def _one(self, record: Record) -> Captioned:
        shape, look = self._known.pop(record.key, None) or measured(record)
        picture, noun, around = SPOKEN[self.modality]
        noun = self.config.noun or noun
        common = {"noun": noun, "around": around}
        anatomy = self._anatomy(record, shape, look, common)
        style = self._style(record, shape, look, common)
        text = self._text(record, self.config.picture or picture, anatomy, style)
        kind = "mask" if shape else "image alone, there is no mask" if record.mask is None else "empty mask"
        own = f"template/{self.version}: "
        sources = {"anatomy": f"{own}{kind}", "style": f"{own}image", "text": f"{own}both fields", "label": "dataset"}
        return Captioned(Caption(text, anatomy, style, record.label), sources)

    def _anatomy(self, record: Record, shape: Shape | None, look: Look, common: dict[str, str]) -> str:
        noun = common["noun"]
        if shape is None and record.mask is not None:
            return say.pick(record.key, "none", (f"no {noun}", f"no visible {noun}", f"no {noun} at all"))
        if shape is None:
            return whole_anatomy(record)
        border = say.border(shape, look, self.cuts, record.key)
        count, size, form = len(shape.centres), say.size(shape, self.cuts), say.form(shape)
        words = {
            **common,
            "nouns": plural(noun),
            "number": say.NUMBERS.get(count, "several"),
            "size": size,
            "a_size": article(size),
            "form": form,
            "a_form": article(form),
            "where": say.where(shape),
            "share": say.share(shape),
            "border": border,
            "a_border": article(border),
            "lie": led(say.lie(shape)),
            "symmetry": led(say.symmetry(shape)),
            "reach": led(say.reach(shape)),
        }
        return say.pick(record.key, "anatomy", SEVERAL if count > 1 else ANATOMY).format(**words)

    def _style(self, record: Record, shape: Shape | None, look: Look, common: dict[str, str]) -> str:
        words = {
            **common,
            "colours": say.greys(look.lightness) if look.colourless else say.colours(look.colours),
            "ground": say.colours(look.ground[:2]),
            "grey": say.greys(look.lightness),
            "relation": "darker" if look.lighter < 0 else "brighter",
            "echo": say.echo(look),
            "an_echo": article(say.echo(look)),
            "behind": say.behind(look),
            "texture": " and ".join(say.texture(look, self.cuts, whole=shape is None)),
            "contrast": say.contrast(look, self.cuts),
            "light": say.light(look),
        }
        phrases = WHOLE
        if shape is not None:
            phrases = ECHO if self.modality == "ultrasound" else GREY if look.colourless else COLOURED
        return say.pick(record.key, "style", phrases).format(**words)

    def _text(self, record: Record, picture: str, anatomy: str, style: str) -> str:
        names = {**CODES, **self.config.names}
        label = names.get(record.label) or say.spoken(record.label)
        named = f", {label}" if label and self.config.say_label else ""
        return say.pick(record.key, "text", TEXT).format(
            Picture=capital(picture), label=named, anatomy=anatomy, Anatomy=capital(anatomy), style=style,
            Style=capital(style),
        )  # fmt: skip


def mask_shape(record: Record) -> Shape | None:
    """Return the form of a record's mask, or None where it is empty or missing."""
    if record.mask is None:
        return None
    mask = np.asarray(shrink(record.mask, LONGEST, mask=True)) > 127
    return shape_of(mask, np.ones_like(mask))


def measured(record: Record) -> tuple[Shape | None, Look]:
    """Return what can be measured on a record; no shape where the mask is empty or missing."""
    rgb = np.asarray(shrink(record.image, LONGEST))
    mask = None if record.mask is None else np.asarray(shrink(record.mask, LONGEST, mask=True)) > 127
    spread = np.ptp(rgb.astype(np.int16), axis=2)
    grey = (spread < 12).mean() > GREY_SHARE  # its black is part of the picture: shadows reach the border
    field = np.ones(rgb.shape[:2], dtype=bool) if grey else field_of_view(rgb)
    if mask is not None:
        field = field | mask
    shape = None if mask is None else shape_of(mask, field)
    return shape, look_of(rgb, mask if shape else None, field)


def whole_anatomy(record: Record) -> str:
    """Describe the layout of a picture without a mask: its mirror symmetry, and where it is bright and dark."""
    grey = np.asarray(shrink(record.image, 64).convert("L"), dtype=np.float32)
    flipped = np.corrcoef(grey.ravel(), grey[:, ::-1].ravel())[0, 1] if grey.std() > 0 else 1.0
    layout = "symmetric" if flipped > 0.8 else "roughly symmetric" if flipped > 0.55 else "asymmetric"
    rows, columns = np.array_split(np.arange(grey.shape[0]), 3), np.array_split(np.arange(grey.shape[1]), 3)
    cells = {
        ((x + 0.5) / 3, (y + 0.5) / 3): grey[np.ix_(rows[y], columns[x])].mean() for y in range(3) for x in range(3)
    }
    bright, dark = max(cells, key=lambda c: cells[c]), min(cells, key=lambda c: cells[c])
    if cells[bright] - cells[dark] < 12:
        return f"{article(layout)} layout from left to right, evenly bright"
    return f"{article(layout)} layout from left to right, brightest {say.at(bright)} and darkest {say.at(dark)}"


def hinted(record: Record) -> set[str]:
    """Name the modalities that a record's own words speak of."""
    words = f"{record.caption.text} {record.label}".lower()
    return {modality for modality, pattern in HINTS.items() if re.search(pattern, words)}


def article(words: str) -> str:
    """Put "a" or "an" before words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def led(words: str) -> str:
    """Return words behind a comma, or nothing."""
    return f", {words}" if words else ""


def capital(words: str) -> str:
    """Return words with a capital first letter."""
    return words[:1].upper() + words[1:]
