"""The phantom set: procedural lesions whose anatomy and style are drawn independently, or linked in training.

It is the only set on which disentanglement has a ground truth: every image comes with its mask, its factor
table, its class (the look of an imaging device) and a caption whose anatomy and style fields say just what was
drawn. Image ``i`` of a seed is the same whatever the number of images, and however many are drawn at once.

Where ``linked`` is above 0, style follows anatomy in training images: a model can then learn to mix them, which
validation and test, always independent, bring to light. A split ``instruments`` holds the training images as they
would be without links, for judges and feature networks that must not learn to mix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anastyle import DATASETS, Caption, ConfigError, Dataset, Link, Record

Array = NDArray[Any]  # float32 or float64, (H, W) or (H, W, channels)

# factor -> value -> the words a caption may use for it
ANATOMY: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "round": ("round", "circular"),
        "oval": ("oval", "elliptical"),
        "kidney": ("kidney-shaped", "bean-shaped"),
        "lobed": ("lobed", "lobulated"),
        "star": ("star-shaped", "spiculated"),
    },
    "symmetry": {"symmetric": ("symmetric", "balanced"), "asymmetric": ("asymmetric", "lopsided")},
    "boundary": {
        "sharp": ("sharp", "well-defined"),
        "blurred": ("blurred", "ill-defined"),
        "jagged": ("jagged", "irregular"),
    },
    "size": {"small": ("small", "tiny"), "medium": ("medium", "mid-sized"), "large": ("large", "big")},
    "place": {
        "centre": ("centre", "middle"),
        "upper left": ("upper left", "top left"),
        "upper right": ("upper right", "top right"),
        "lower left": ("lower left", "bottom left"),
        "lower right": ("lower right", "bottom right"),
    },
}
STYLE: dict[str, dict[str, tuple[str, ...]]] = {
    "palette": {
        "brown": ("brown", "tan"),
        "red": ("red", "crimson"),
        "blue-grey": ("blue-grey", "slate"),
        "black": ("black", "charcoal"),
    },
    "texture": {
        "smooth": ("smooth", "homogeneous"),
        "dotted": ("dotted", "globular"),
        "streaked": ("streaked", "striped"),
        "network": ("net-like", "reticular"),
    },
    "lighting": {
        "even": ("even", "uniform"),
        "side": ("one-sided", "lateral"),
        "vignette": ("vignetted", "dark-cornered"),
    },
    "noise": {"clean": ("clean", "noise-free"), "grainy": ("grainy", "noisy")},
}
FACTORS = ANATOMY | STYLE
LOOKS = ("dermoscopy", "endoscopy", "ultrasound")
LINKS = {"palette": "shape", "texture": "boundary", "lighting": "size", "noise": "symmetry"}
FOLLOWING = {  # style factor -> anatomy value -> the style value that follows it, by position
    style: {value: list(STYLE[style])[place % len(STYLE[style])] for place, value in enumerate(ANATOMY[anatomy])}
    for style, anatomy in LINKS.items()
}

# What only the wide world has: a base model meets it, the study's own set does not.
WIDE: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {"square": ("square", "boxy"), "triangle": ("triangular", "wedge-shaped")},
    "place": {"left": ("far left",), "right": ("far right",), "top": ("uppermost",), "bottom": ("lowermost",)},
    "palette": {"purple": ("purple", "violet"), "yellow": ("yellow", "ochre")},
    "lighting": {"side-right": ("right-lit",)},
}
WIDE_SHARE = 0.2  # of the draws of a factor that has wide values

FIRST = {"train": 0, "validation": 20_000_000, "test": 10_000_000, "instruments": 0}  # index of a split's first image
INSTRUMENTS = 4096  # images of the unlinked split at most
LINKING = 1  # the stream of an image's random numbers that its links are drawn from

RADIUS = {"small": 0.27, "medium": 0.40, "large": 0.55}  # of half the image's width
TILT = np.pi / 8  # how far a lesion is turned at most, either way: no word of a caption says how it is turned
BULGE = -np.pi / 5  # where an asymmetric lesion bulges, before it is turned: up and to the right
PLACES = {
    "centre": (0.0, 0.0),
    "upper left": (-0.36, -0.36),
    "upper right": (0.36, -0.36),
    "lower left": (-0.36, 0.36),
    "lower right": (0.36, 0.36),
    "left": (-0.45, 0.0),
    "right": (0.45, 0.0),
    "top": (0.0, -0.45),
    "bottom": (0.0, 0.45),
}
COLOURS = {
    "brown": (0.46, 0.27, 0.14),
    "red": (0.72, 0.10, 0.12),
    "blue-grey": (0.32, 0.42, 0.60),
    "black": (0.11, 0.09, 0.11),
    "purple": (0.46, 0.18, 0.52),
    "yellow": (0.80, 0.68, 0.22),
}
CHROMA = {  # an ultrasound image has no colour of its own: the palette is the display's chroma map
    "brown": (1.00, 0.80, 0.55),
    "red": (1.00, 0.58, 0.52),
    "blue-grey": (0.62, 0.82, 1.00),
    "black": (1.00, 1.00, 1.00),
    "purple": (0.85, 0.62, 1.00),
    "yellow": (1.00, 0.95, 0.50),
}

CAPTIONS = (
    "{look} image of {anatomy}. {style}.",
    "This {look} frame shows {anatomy}; {style}.",
    "{style}. One {look} picture with {anatomy}.",
    "On {look}, {anatomy} is seen; {style}.",
    "{anatomy} in the {look} view, {style}.",
)
ANATOMY_PHRASES = (
    "a {size} {shape} lesion in the {place}, {symmetry}, with a {boundary} border",
    "a {symmetry} {shape} lesion of {size} extent with {boundary} margins, located {place}",
    "one {shape} lesion at the {place}: {size}, {symmetry}, {boundary} outline",
    "a {size} lesion, {place}, whose {boundary} contour is {shape} and {symmetry}",
)
STYLE_PHRASES = (
    "its colour is {palette} with a {texture} texture under {lighting} light, {noise} picture",
    "{palette} tones, {texture} surface, {lighting} illumination and {noise} quality",
    "the {texture} interior is {palette}; lighting is {lighting}, the image {noise}",
    "{noise} image with {lighting} lighting, {palette} colour and {texture} pattern",
)
GENERIC = (  # one undivided description, as a general image-text corpus would have it
    "{look} photo: {palette} {texture} {shape} spot, {size}, {place}, {boundary} edge, {symmetry}, {lighting} light, "
    "{noise}",
    "one {noise} {look} picture, {lighting} lighting, of a {size} {symmetry} {palette} {shape} blob, {texture}, "
    "{place}, {boundary} rim",
    "{place}: {shape} {palette} patch ({size}, {boundary}), {texture}; {symmetry}; {lighting}, {noise} {look}",
)


class Lesion(NamedTuple):
    """What an image is to show."""

    look: str
    factors: dict[str, str]


@DATASETS.register
class Phantom(Dataset):
    """Procedural lesions with known factors, in three looks."""

    @dataclass
    class Config(Dataset.Config):
        """How many images, and of which world."""

        train: int = 4096
        validation: int = 512
        test: int = 1024
        image_size: int = 64
        seed: int = 2026
        world: Literal["study", "wide"] = "study"
        linked: float = 0.0  # how often a style factor of a training image follows its anatomy factor

    factors = {name: tuple(values) for name, values in FACTORS.items()}
    anatomy_factors = tuple(ANATOMY)
    links = LINKS
    link_values: ClassVar[dict[str, dict[str, str]]] = FOLLOWING
    draws_validation = False
    audited = False
    classes = LOOKS

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not 0 <= config.linked <= 1:
            raise ConfigError(f"data.linked: {config.linked} is not from 0 to 1, the probability that style follows.")
        if config.linked and config.world == "wide":
            raise ConfigError("data.linked: the wide world has no links; write world: study, or linked: 0.")

    def drawn_links(self) -> dict[str, Link]:
        """Return every link if training images are linked."""
        if not self.config.linked:
            return {}
        return {style: Link(follows=anatomy, values=FOLLOWING[style]) for style, anatomy in LINKS.items()}

    def records(self) -> Iterator[Record]:
        """Yield every image of the set, the training split first."""
        config = self.config
        counts = {"train": config.train, "validation": config.validation, "test": config.test}
        if config.linked:
            counts["instruments"] = min(config.train, INSTRUMENTS)
        for split, count in counts.items():
            for index in range(FIRST[split], FIRST[split] + count):
                yield self.record(index, split)

    def record(self, index: int, split: str) -> Record:
        """Draw image ``index``: its look, its factors, its words, its pixels."""
        rng = np.random.default_rng([self.config.seed, index])
        look, factors = self.lesion(rng, index, split)
        caption = write_caption(rng, look, factors, generic=self.config.world == "wide")
        image, mask = render(rng, look, factors, self.config.image_size)
        group = f"phantom-{index:08d}"
        key = f"{group}-unlinked" if split == "instruments" else group
        return Record(key, image, mask, caption, label=look, group=group, split=split, factors=factors)

    def lesion(self, rng: np.random.Generator, index: int, split: str) -> Lesion:
        """Draw what image ``index`` is to show; links are drawn from a stream of their own, so that no other
        random number depends on them."""
        look = LOOKS[rng.integers(len(LOOKS))]
        factors = draw_factors(rng, wide=self.config.world == "wide")
        if self.config.linked and split == "train":
            links = np.random.default_rng([self.config.seed, index, LINKING])
            factors |= follow(links, factors, self.config.linked)
        return Lesion(look, factors)


def draw_factors(rng: np.random.Generator, *, wide: bool) -> dict[str, str]:
    """Draw every factor independently and uniformly."""
    factors = {}
    for name, values in FACTORS.items():
        value = str(rng.choice(list(values)))
        if wide and name in WIDE and rng.random() < WIDE_SHARE:
            value = str(rng.choice(list(WIDE[name])))
        factors[name] = value
    return factors


def follow(rng: np.random.Generator, factors: dict[str, str], share: float) -> dict[str, str]:
    """Return the style factors that follow their anatomy factor, each with probability ``share``."""
    chances = dict(zip(LINKS, rng.random(len(LINKS)), strict=True))
    return {style: FOLLOWING[style][factors[anatomy]] for style, anatomy in LINKS.items() if chances[style] < share}


def write_caption(rng: np.random.Generator, look: str, factors: dict[str, str], *, generic: bool) -> Caption:
    """Describe the factors in one of many phrasings; a generic caption has no separate fields."""
    words: dict[str, str] = {}
    for name, value in factors.items():
        synonyms = FACTORS[name].get(value) or WIDE[name][value]
        words[name] = str(rng.choice(synonyms))
    anatomy = str(rng.choice(ANATOMY_PHRASES)).format(**words)
    style = str(rng.choice(STYLE_PHRASES)).format(**words)
    if generic and rng.random() < 0.5:
        text = str(rng.choice(GENERIC)).format(look=look, **words)
        return Caption(text[0].upper() + text[1:], label=look)
    text = str(rng.choice(CAPTIONS)).format(look=look, anatomy=anatomy, style=style)
    text = text[0].upper() + text[1:]
    return Caption(text, label=look) if generic else Caption(text, anatomy, style, look)


def render(rng: np.random.Generator, look: str, factors: dict[str, str], size: int) -> tuple[Image.Image, Image.Image]:
    """Paint one lesion; returns the RGB image and its 0/255 mask, both ``size`` pixels square."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, axis)
    alpha, mask = lesion_outline(rng, factors, x, y)
    scene = background(rng, look, x, y)
    scene = paint_lesion(rng, look, factors, scene, alpha, x, y)
    scene = light(factors["lighting"], scene, x, y)
    scene = scene + grain(rng, factors["noise"], size)
    pixels = np.clip(scene * 255 + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), Image.fromarray(mask.astype(np.uint8) * 255)


def lesion_outline(
    rng: np.random.Generator, factors: dict[str, str], x: Array, y: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Return the lesion's opacity (H, W) and its mask (H, W)."""
    jitter = rng.uniform(-0.06, 0.06, 2)
    centre_x, centre_y = np.asarray(PLACES[factors["place"]]) + jitter
    radius = RADIUS[factors["size"]] * rng.uniform(0.92, 1.08)
    turn = rng.uniform(-TILT, TILT)
    angle = np.arctan2(y - centre_y, x - centre_x) - turn  # (H, W)
    distance = np.hypot(x - centre_x, y - centre_y)

    circle = np.linspace(-np.pi, np.pi, 721)
    contour = shape_radius(factors["shape"], circle)
    if factors["symmetry"] == "asymmetric":  # a bulge on one side
        towards = BULGE + rng.uniform(-TILT, TILT)
        offset = np.angle(np.exp(1j * (circle - towards)))
        contour = contour * (1 + 0.75 * np.exp(-((offset / 0.38) ** 2)))
    contour = contour / np.sqrt(np.mean(contour**2))  # the same area for every shape
    if factors["boundary"] == "jagged":
        waves = sum(np.sin(k * circle + rng.uniform(0, 2 * np.pi)) for k in (11, 14, 17, 21))
        contour = contour * (1 + 0.06 * waves)
    limit = radius * np.interp(np.angle(np.exp(1j * angle)), circle, contour)
    softness = 0.32 * radius if factors["boundary"] == "blurred" else 0.035
    alpha = 1 / (1 + np.exp(-np.clip((limit - distance) / (softness / 2), -30, 30)))
    return alpha.astype(np.float32), distance < limit


def shape_radius(shape: str, angle: NDArray) -> NDArray:
    """Return the contour's radius at each angle, before it is normalised to unit area."""
    if shape == "oval":
        return 1 / np.hypot(np.cos(angle) / 1.5, np.sin(angle) / 0.72)
    if shape == "kidney":
        dent = np.exp(-(((angle + np.pi / 2) / 0.55) ** 2))
        return (1 - 0.62 * dent) / np.hypot(np.cos(angle) / 1.3, np.sin(angle) / 0.85)
    if shape == "lobed":
        return 1 + 0.34 * np.cos(3 * angle)
    if shape == "star":
        return 0.55 + 0.9 * np.abs(np.cos(2.5 * angle)) ** 3
    if shape in ("square", "triangle"):
        corner = 2 * np.pi / {"square": 4, "triangle": 3}[shape]
        return 1 / np.cos(np.mod(angle, corner) - corner / 2)
    return np.ones_like(angle)


def background(rng: np.random.Generator, look: str, x: Array, y: Array) -> Array:
    """Return what the device would show without a lesion, (H, W, 3) in [0, 1]."""
    size = len(x)
    cloud = smooth_noise(rng, size, 5)[..., None]
    if look == "dermoscopy":
        skin = np.asarray((0.90, 0.72, 0.62)) + rng.normal(0, 0.015, 3)
        scene = skin + 0.025 * cloud
        for _ in range(rng.integers(0, 3)):
            scene = scene - 0.3 * hair(rng, x, y)[..., None]
        return scene.astype(np.float32)
    if look == "endoscopy":
        mucosa = np.asarray((0.88, 0.55, 0.45)) + rng.normal(0, 0.015, 3)
        across, turn = rng.uniform(2.5, 4), rng.uniform(0, np.pi)
        fold = np.sin(across * (x * np.cos(turn) + y * np.sin(turn)) + 1.2 * cloud[..., 0])
        scene = mucosa + 0.05 * fold[..., None] + 0.02 * cloud
        for _ in range(rng.integers(1, 4)):
            u, v = rng.uniform(-0.9, 0.9, 2)
            scene = scene + 0.5 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 0.0025)[..., None]
        return scene.astype(np.float32)
    layers = sum(np.sin(k * np.pi * (y + 0.06 * smooth_noise(rng, size, 4)) + rng.uniform(0, 6)) for k in (2.1, 3.7))
    echo = 0.50 + 0.07 * layers + 0.035 * smooth_noise(rng, size, 20)
    return np.repeat(echo[..., None], 3, axis=2).astype(np.float32)


def paint_lesion(
    rng: np.random.Generator, look: str, factors: dict[str, str], scene: Array, alpha: Array, x: Array, y: Array
) -> Array:
    """Lay the lesion's colour and texture over the scene; ultrasound adds its shadow and chroma map."""
    pattern = texture(rng, factors["texture"], x, y)[..., None]  # (H, W, 1) in [0, 1]
    cover = alpha[..., None]
    if look == "ultrasound":
        column = np.where(alpha > 0.5, 1.0, 0.0)
        shadow = np.clip(np.cumsum(column, axis=0) / (0.2 * len(x)), 0, 1) * (1 - alpha)
        scene = scene * (1 - 0.22 * shadow[..., None])
        inside = 0.11 + 0.19 * pattern
        return (scene * (1 - cover) + inside * cover) * np.asarray(CHROMA[factors["palette"]], np.float32)
    colour = np.asarray(COLOURS[factors["palette"]], np.float32)
    inside = colour + (0.12 + 0.22 * colour) * (pattern - 0.25)
    return scene * (1 - cover) + inside * cover


def texture(rng: np.random.Generator, kind: str, x: Array, y: Array) -> Array:
    """Return the lesion's surface, bright where it is raised, (H, W) in [0, 1]."""
    if kind == "smooth":
        return np.full_like(x, 0.25)
    turn, wave = rng.uniform(0, np.pi), 2 * np.pi / 0.235  # one period is 7.5 pixels of 64
    phase = rng.uniform(0, 2 * np.pi, 3)
    if kind == "streaked":
        return 0.5 + 0.5 * np.sin(wave * (x * np.cos(turn) + y * np.sin(turn)) + phase[0])
    if kind == "dotted":
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        bumps = (0.5 + 0.5 * np.sin(wave * u + phase[0])) * (0.5 + 0.5 * np.sin(wave * v + phase[1]))
        return 1.25 * bumps**1.5
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    line = np.minimum(np.abs(np.sin(wave / 2.6 * u + phase[0])), np.abs(np.sin(wave / 2.6 * v + phase[1])))
    return np.clip(1.25 - 2.2 * line, 0, 1)


def light(kind: str, scene: Array, x: Array, y: Array) -> Array:
    """Shade the scene: even, from one side, or darkened towards the corners."""
    if kind == "side":
        return scene * (0.78 - 0.38 * x)[..., None]
    if kind == "side-right":
        return scene * (0.78 + 0.38 * x)[..., None]
    if kind == "vignette":
        return scene * (1 - 0.85 * np.clip((np.hypot(x, y) - 0.75) / 0.55, 0, 1))[..., None]
    return scene


def grain(rng: np.random.Generator, kind: str, size: int) -> Array:
    """Return sensor noise (H, W, 1): hardly any, or a grain two to three pixels wide."""
    fine = 0.008 * rng.standard_normal((size, size, 1))
    if kind == "clean":
        return fine.astype(np.float32)
    return (fine + 0.055 * smooth_noise(rng, size, max(2, round(size / 2.4)))[..., None]).astype(np.float32)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Return unit-variance noise whose grain is ``size / cells`` pixels wide, (H, W)."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    noise = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    return noise / (noise.std() + 1e-6)


def hair(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Return a thin curved strand, (H, W) in [0, 1]."""
    turn, bend, shift = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4), rng.uniform(-0.7, 0.7)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return np.exp(-(((v - shift - bend * u**2) / 0.03) ** 2)).astype(np.float32)
