"""One number with all it takes to read it, and the card that says which numbers compare.

Two numbers compare when their cards are the same: same measure, features and preprocessing, same real images, same
counts. ``Value.hash`` stands for the card; the sentence in ``Value.protocol`` says the same to a reader.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

COST = "cost/"  # what keys of such values begin with
VERSION = 1  # of the measures: raised when the same card comes to give another number


@dataclass(frozen=True)
class Card:
    """How a number was measured, by which it compares with another."""

    what: str  # the measure and its constants: "kid: unbiased MMD, ..."
    features: str  # fingerprint: network, weights, its own size and resize
    width: int  # of a feature
    resize: str  # how images were brought to ``side``, if they were of another size
    side: int  # pixels
    generated: int  # images
    against: int  # real images
    held: int  # other real images, for the floor
    reference: str  # hash of the real images' pixels
    interval: str
    version: int = VERSION

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that stand for the card."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Value:
    """One number and what it takes to read it."""

    value: float
    low: float | None = None  # of the 95 % interval
    high: float | None = None
    floor: float | None = None  # a distance, or a share of images near others: real against real. An accuracy: chance
    n: int = 0  # generated images
    protocol: str = ""
    ceiling: float | None = None  # an accuracy on real held-out images
    decoded: float | None = None  # the same, after the autoencoder
    card: Card | None = None  # of a distance; values that were stored before there were cards have none
    samples: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    """What it is the mean of, (n,) or (parts, n), NaN where nothing was asked; stored beside the values."""

    def __post_init__(self) -> None:
        if isinstance(self.card, dict):  # read from JSON
            object.__setattr__(self, "card", Card(**self.card))
        if not self.protocol:
            raise ValueError("a value needs a protocol: how it was measured, in one sentence")

    @property
    def hash(self) -> str:
        """The card's hash: numbers compare where it is the same. Empty without a card; then go by the sentence."""
        return self.card.hash if self.card else ""

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and strings; ``Value(**...)`` reads them back, without samples."""
        content = asdict(replace(self, samples=None))
        return {name: item for name, item in content.items() if name != "samples"}


def alike(one: Value, other: Value) -> bool:
    """Say whether two numbers were measured alike: by their cards, or where one has none by their protocols."""
    return one.hash == other.hash if one.hash and other.hash else one.protocol == other.protocol
