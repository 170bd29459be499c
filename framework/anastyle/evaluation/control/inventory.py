"""What each code of a run holds: every factor by a linear probe, and how loud it is there.

A code that holds a factor in a hundredth of its variance is read by a probe as well as one that shouts it; a network
trained for a short time follows what is loud. So each number stands beside the other.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anastyle.evaluation.bootstrap import share
from anastyle.evaluation.control.codes import Array, probe
from anastyle.evaluation.reference import Settings
from anastyle.interfaces import Condition, Factors, Fuser, Reading

ENOUGH = 0.95  # of a factor, in the code that words are read into: less, and the words lose it
VISUAL, TEXT, FUSED = "visual", "text", "fused"
SHARED, WORDS = "shared", "words"


class Code(NamedTuple):
    """One code of n images, or of their captions."""

    origin: str  # visual, text or fused
    kind: str  # anatomy, style; of fused tokens also shared by both, or words
    points: Array  # (n, D)

    @property
    def name(self) -> str:
        """What a table calls it."""
        tokens = self.origin == FUSED and self.kind != WORDS
        return f"{self.origin} {self.kind}" + (" tokens" if tokens else "")


class Held(NamedTuple):
    """How well a linear probe reads one factor off a code, and how much of the code's variance that factor is."""

    accuracy: float
    low: float | None  # of the 95 % interval over images
    high: float | None
    chance: float
    variance: float


def inventory(code: Code, factors: Mapping[str, NDArray], settings: Settings) -> dict[str, Held]:
    """Return what a code holds of each factor; ``factors`` are their values (n,)."""
    return {name: held(code.points, values, settings) for name, values in factors.items()}


def held(points: Array, values: NDArray, settings: Settings) -> Held:
    """Return what a code (n, D) holds of one factor, (n,)."""
    chance = np.bincount(values).max() / len(values)
    return Held(*share(probe(points, values), settings), float(chance), variance_share(points, values))


def variance_share(points: Array, values: NDArray) -> float:
    """Return the variance between a factor's values as a share of the total variance of a code (n, D).

    It is the mean of eta squared over the code's numbers, each weighted by its variance. 0 for a code that is constant.
    """
    centred = points - points.mean(axis=0)
    total = np.square(centred).sum()
    groups = [centred[values == value] for value in np.unique(values)]
    between = sum(len(group) * np.square(group.mean(axis=0)).sum() for group in groups)
    return float(between / total) if total > 1e-12 * points.size else 0.0


def factor_codes(origin: str, factors: Factors) -> list[Code]:
    """Return the codes of anatomy and of style, flat."""
    return [Code(origin, kind, flat(factor)) for kind, factor in factors._asdict().items()]


@torch.no_grad()
def fused_codes(fuser: Fuser, readings: Iterable[Reading]) -> list[Code]:
    """Return a fuser's condition tokens by what they depend on: anatomy alone, style alone, both; or words, averaged.

    Which token is whose is found by exchanging one factor among the captions of the first, largest batch.
    """
    batches = [(reading, fuser(reading)) for reading in readings]
    first, fused = batches[0]
    if first.factors is None:
        return [Code(FUSED, WORDS, np.concatenate([averaged(condition) for _, condition in batches]))]
    moved = {kind: moves(fuser, first, fused, kind) for kind in Factors._fields}
    places = {
        "anatomy": moved["anatomy"] & ~moved["style"],
        "style": moved["style"] & ~moved["anatomy"],
        SHARED: moved["anatomy"] & moved["style"],
    }
    tokens = torch.cat([condition.tokens for _, condition in batches])  # (n, L, width)
    return [Code(FUSED, kind, flat(tokens[:, at])) for kind, at in places.items() if at.any()]


def moves(fuser: Fuser, reading: Reading, fused: Condition, kind: str) -> Tensor:
    """Return which condition tokens change when one factor is exchanged among B captions, (L,) bool."""
    assert reading.factors is not None
    exchanged = reading.factors._replace(**{kind: getattr(reading.factors, kind).roll(1, dims=0)})
    other = fuser(reading._replace(factors=exchanged)).tokens
    return ~torch.isclose(fused.tokens, other, rtol=1e-4, atol=1e-6).all(dim=2).all(dim=0)


def averaged(condition: Condition) -> Array:
    """Return the mean (B, width) of the tokens that may be attended to."""
    kept = condition.mask[..., None].to(condition.tokens.dtype)
    return flat((condition.tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1))


def flat(values: Tensor) -> Array:
    """Return (n, ...) as float64 numbers (n, D)."""
    return values.flatten(1).cpu().double().numpy()


def verdict(found: Mapping[str, dict[str, Held]], kinds: Mapping[str, Iterable[str]]) -> str:
    """Say which factors fall below 95 % in the text-read code of their own kind, or that none does.

    Arguments:
        found: by the code's name, what it holds.
        kinds: kind of factor -> its factors.
    """
    read = {kind: found[f"{TEXT} {kind}"] for kind in kinds if f"{TEXT} {kind}" in found}
    if not read:
        return "No code of a factor is read off the words of this run: it has none that could lose one."
    own = [(kind, name, read[kind][name].accuracy) for kind in read for name in kinds[kind]]
    lost = [f"{name} {100 * accuracy:.1f} % ({kind})" for kind, name, accuracy in own if accuracy < ENOUGH]
    if not lost:
        return f"No factor falls below {100 * ENOUGH:.0f} % in the text-read code of its own kind."
    return f"Below {100 * ENOUGH:.0f} % in the text-read code of its own kind: {', '.join(lost)}."
