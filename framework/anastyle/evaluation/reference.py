"""The real images that generated ones are measured against, in two disjoint parts: the second gives the floor."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from anastyle.errors import DataError
from anastyle.evaluation.distances import Array
from anastyle.evaluation.features import features_of, pixels_hash
from anastyle.evaluation.judge import Examples, pixels
from anastyle.interfaces import Feature

FEWEST = 10  # images, below which no distance is worth its name


@dataclass(frozen=True)
class Settings:
    """The person's choices of the evaluate stage that concern numbers."""

    reference: Literal["test", "train"] = "test"
    draws: int = 200
    """Resamples behind an interval."""
    seed: int = 0
    max_side: int = 128
    """Features look at images no larger than this."""


class Real(NamedTuple):
    """Features of both parts of the real images."""

    against: Array  # (m, F)
    held: Array  # (k, F); k = 0: there is no floor


@dataclass
class Reference:
    """Real images, in two disjoint parts: what is measured against, and what gives the floor."""

    against: Tensor  # (m, 3, s, s) uint8
    held: Tensor  # (k, 3, s, s) uint8
    side: int
    words: str  # for the protocol
    cache: Path | None = None  # where features are kept, these images' and those of the images measured
    _features: dict[str, Real] = field(default_factory=dict)

    def features(self, network: Feature) -> Real:
        """Return the features of both parts, computed once a network."""
        key = network.fingerprint()
        if key not in self._features:
            against = self.look(network, self.against)
            held = self.look(network, self.held) if len(self.held) else against[:0]
            self._features[key] = Real(against, held)
        return self._features[key]

    def look(self, network: Feature, images: Tensor) -> Array:
        """Return the features (n, F) of uint8 images (n, 3, H, W), as those of the real images are computed."""
        return features_of(network, images, self.side, cache=self.cache)

    @cached_property
    def hash(self) -> str:
        """Name the real images by their pixels."""
        return pixels_hash(self.against, self.held)


def reference(train: Examples, test: Examples, n: int, settings: Settings, *, cache: Path | None = None) -> Reference:
    """Choose the real images that ``n`` generated ones are measured against; the same for every variant and seed.

    From the test split, half is kept for the floor (``n`` images where that is less). From the training split, the
    test split gives the floor, which then also holds the gap between the two.

    Raises:
        DataError: too few real images.
    """
    rng = np.random.default_rng([settings.seed, 1])
    order = rng.permutation(len(test)).tolist()
    kept = min(n, len(test) // 2 if settings.reference == "test" else len(test))
    source, rows = (test, order[kept:]) if settings.reference == "test" else (train, list(range(len(train))))
    if min(kept, len(rows)) < FEWEST:
        raise DataError(
            f"the test split has {len(test)} images: a distance needs {2 * FEWEST}, half of them for the floor.\n"
            f"Prepare a larger test share."
        )
    side = min(settings.max_side, source.image(0).shape[-1])
    words = f"{len(rows)} real {settings.reference} images; floor: {kept} other real test images against the same"
    return Reference(pixels(source, side, rows)[0], pixels(test, side, order[:kept])[0], side, words, cache)
