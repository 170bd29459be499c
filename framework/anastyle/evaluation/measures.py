"""Features of generated and real images -> values: every distance with its interval, its floor and its card.

Keys name number and network, as ``fd_inception`` and ``recall_dinov2`` do. On ``domain``, the network every study has,
all but ``fd_domain`` go by their bare names: ``kid``, ``precision``; so does ``cmmd``, which is on ``clip`` alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from anastyle.errors import DataError
from anastyle.evaluation.distances import Array, Resampled, frechet, frechets, half_samples, interval
from anastyle.evaluation.features import RESIZE
from anastyle.evaluation.kernels import cmmd, cmmds, kid, kids
from anastyle.evaluation.neighbours import FEWEST as FEWEST_NEIGHBOURS
from anastyle.evaluation.neighbours import NEAR, WIDE, prdc, prdcs
from anastyle.evaluation.reference import Real, Reference, Settings
from anastyle.evaluation.values import Card, Value
from anastyle.interfaces import Feature

MOST = 10_000  # points a side of a measure that looks at all pairs
UNSCALED = frozenset({"highfreq"})  # log powers, far from the order of 1 that the cubic kernel is made for
INFINITY = float("inf")


class Number(NamedTuple):
    """One number of a measure, and how it is to be read."""

    title: str
    words: str  # for the protocol
    lower_is_better: bool = True
    least: float = -INFINITY
    most: float = INFINITY


@dataclass(frozen=True)
class Measure:
    """Numbers that are computed together from generated features (n, F) and real ones (m, F)."""

    keys: tuple[str, ...]
    point: Callable[[Array, Array, int], Sequence[float]]  # generated, real, seed -> one a key
    resampled: Resampled  # (draws,), or (draws, keys)
    fewest: int = 2  # points a side
    most: int = MOST
    spread: bool = False  # are generated points needed that differ from each other?


PAIRS = f"at most {MOST} images a side"
NUMBERS = {
    "fd": Number("Fréchet distance", "Fréchet distance (biased by n)", least=0.0),
    "kid": Number(
        "kernel distance",
        "Kernel distance (unbiased MMD, cubic kernel, mean of 100 subsets of half the smaller side, at most 1000)",
    ),
    "cmmd": Number("CMMD", f"CMMD (1000 x unbiased MMD, Gaussian kernel of width 10, unit embeddings; {PAIRS})"),
    "precision": Number(
        "precision",
        f"Precision (share of generated images within {NEAR} neighbours of a real one; {PAIRS})",
        lower_is_better=False,
        least=0.0,
        most=1.0,
    ),
    "recall": Number(
        "recall",
        f"Recall (share of real images within {NEAR} neighbours of a generated one; {PAIRS})",
        lower_is_better=False,
        least=0.0,
        most=1.0,
    ),
    "density": Number(
        "density",
        f"Density (real images within whose {WIDE} neighbours a generated one lies, over {WIDE}; {PAIRS})",
        lower_is_better=False,
        least=0.0,
    ),
    "coverage": Number(
        "coverage",
        f"Coverage (share of real images within whose {WIDE} neighbours a generated one lies; {PAIRS})",
        lower_is_better=False,
        least=0.0,
        most=1.0,
    ),
}
FRECHET = Measure(("fd",), lambda a, b, _: [frechet(a, b)], frechets, most=2**62)
KERNEL = Measure(("kid",), lambda a, b, seed: [kid(a, b, seed=seed).mean], kids)
CLIP = Measure(("cmmd",), lambda a, b, _: [cmmd(a, b)], cmmds)
SHARES = Measure(
    ("precision", "recall", "density", "coverage"),
    lambda a, b, _: prdc(a, b),
    prdcs,
    fewest=FEWEST_NEIGHBOURS,
    spread=True,
)


def distance_values(
    generated: Tensor,
    real: Reference,
    features: dict[str, Feature],
    settings: Settings,
    *,
    chosen: Mapping[str, Sequence[Measure]] | None = None,
    decoded: Tensor | None = None,
) -> dict[str, Value]:
    """Return all measures of uint8 images (n, 3, H, W) on each network's features.

    A measure that is not defined is left out: precision, recall, density and coverage of fewer than 20 images, or of
    images that are all alike. A Fréchet and a kernel distance of images that are all alike are defined, and large.

    Arguments:
        chosen: what is wanted of a network, where that is not all.
        decoded: uint8 (n, 3, H, W), real images after the autoencoder, measured like generated ones.

    Raises:
        DataError: features are not finite, or the real images' are all the same.
    """
    values = {}
    for name, network in features.items():
        fake, found = real.look(network, generated), real.features(network)
        lossy = None if decoded is None else real.look(network, decoded)
        if alike(found.against):
            raise DataError(f"{name}: all {len(found.against)} real images give the same features. Nothing differs.")
        about = About(network.fingerprint(), real, settings, lossy)
        for measure in (chosen or {}).get(name) or measures_of(name):
            values |= {key_of(key, name): value for key, value in measured(measure, fake, found, about).items()}
    return values


def measures_of(network: str) -> list[Measure]:
    """Return what is measured on a network's features."""
    kernels = [] if network in UNSCALED else [KERNEL]
    return [FRECHET, *kernels, *([CLIP] if network == "clip" else []), SHARES]


def key_of(number: str, network: str) -> str:
    """Return what a number on a network's features is called."""
    bare = number == "cmmd" or (network == "domain" and number != "fd")
    return number if bare else f"{number}_{network}"


class About(NamedTuple):
    """What the numbers of one network have in common."""

    features: str  # fingerprint
    real: Reference
    settings: Settings
    decoded: Array | None = None  # features (n, F) of real images after the autoencoder


def measured(measure: Measure, fake: Array, found: Real, about: About) -> dict[str, Value]:
    """Return the values of a measure, or none where it is not defined."""
    seed, draws = about.settings.seed, about.settings.draws
    fake, against, held = (thinned(points, measure.most, seed) for points in (fake, *found))
    if min(len(fake), len(against)) < measure.fewest or (measure.spread and alike(fake)):
        return {}
    points = measure.point(fake, against, seed)
    floors = measure.point(held, against, seed) if len(held) >= measure.fewest else [None] * len(points)
    lossy = None if about.decoded is None else thinned(about.decoded, measure.most, seed)
    bounds = [None] * len(points) if lossy is None else measure.point(lossy, against, seed)
    spreads: list[Array | None] = [None] * len(points)
    if draws:
        halves = half_samples(measure.resampled, fake, against, draws=draws, seed=seed)
        spreads = list(halves.reshape(draws, -1).T)
    values = {}
    for key, point, floor, bound, spread in zip(measure.keys, points, floors, bounds, spreads, strict=True):
        number = NUMBERS[key]
        card = card_of(number, (fake, against, held), about)
        values[key] = Value(
            point,
            *bounded(point, spread, number),
            floor=floor,
            n=len(fake),
            protocol=sentence(card, about.real),
            decoded=bound,
            card=card,
        )
    return values


def bounded(value: float, spread: Array | None, number: Number) -> tuple[float | None, float | None]:
    """Return the 95 % interval within what the number can be, or nothing where none was asked for.

    Half-samples that all give one number, as those of a recall of 0, say nothing of its error.
    """
    if spread is None or np.ptp(spread) == 0:
        return None, None
    low, high = interval(value, spread)
    return max(number.least, low), min(number.most, high)


def card_of(number: Number, clouds: tuple[Array, Array, Array], about: About) -> Card:
    """Return the card of a number: by what it compares with others."""
    fake, against, held = clouds
    draws = about.settings.draws
    return Card(
        what=number.words,
        features=about.features,
        width=fake.shape[1],
        resize=RESIZE,
        side=about.real.side,
        generated=len(fake),
        against=len(against),
        held=len(held),
        reference=about.real.hash,
        interval=f"95 %, {draws} half-samples of both sides, centred" if draws else "none",
    )


def sentence(card: Card, real: Reference) -> str:
    """Return the protocol in words."""
    return (
        f"{card.what}; {card.generated} generated against {real.words}; features {card.features}, F={card.width}, "
        f"images at {card.side} px ({card.resize}); interval: {card.interval}"
    )


def thinned(points: Array, most: int, seed: int) -> Array:
    """Return at most that many of the points, drawn at random."""
    if len(points) <= most:
        return points
    return points[np.random.default_rng([seed, 3]).choice(len(points), most, replace=False)]


def alike(points: Array) -> bool:
    """Say whether all points (n, F) are the same, to rounding."""
    return bool((np.ptp(points, axis=0) <= 1e-6 * (1 + np.abs(points).max(axis=0))).all())
