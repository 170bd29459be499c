"""The real images that generated ones are measured against, in two disjoint parts: the second gives the floor."""

from collections.abc import Sequence
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
MOST = 2048  # training images that are measured against


@dataclass(frozen=True)
class Settings:
    """The person's choices of the evaluate stage that concern numbers."""

    reference: Literal["test", "train"] | None = None
    """Which split's images are measured against; None: test where it is large enough, see ``reference``."""
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


def reference(
    train: Examples, test: Examples, asked: Sequence[int], settings: Settings, *, cache: Path | None = None
) -> Reference:
    """Choose the real images that the images of ``asked`` test captions are measured against: alike for all variants.

    The floor is what the real images of those very captions get: as many as are generated, asked for the same, and none
    of them among the images measured against. A Fréchet distance falls with the number of images, so that a floor of
    fewer would say nothing beside it. Where the test split holds at least as many images again, these are measured
    against. Where it does not, as on small sets, whose whole test split is painted, the training images are, at most
    2048 of them: the floor then holds the gap between the two splits, and a model that repeats training images comes
    below it, which counts as no more than the floor.

    Raises:
        DataError: too few real images.
    """
    wanted = set(asked)
    others = [row for row in range(len(test)) if row not in wanted]
    chosen = settings.reference or ("test" if len(others) >= len(wanted) else "train")
    source, rows = (test, others) if chosen == "test" else (train, few_of(len(train), settings.seed))
    if min(len(wanted), len(rows)) < FEWEST:
        raise DataError(
            f"there are {len(wanted)} test captions that images were painted for, and {len(rows)} real {chosen} images "
            f"beside them: a distance needs {FEWEST} of each.\nPrepare a larger test share."
        )
    side = min(settings.max_side, source.image(0).shape[-1])
    words = f"{len(rows)} real {chosen} images; floor: the {len(wanted)} real test images of the same captions"
    held = pixels(test, side, sorted(wanted))[0]
    return Reference(pixels(source, side, rows)[0], held, side, words, cache)


def few_of(count: int, seed: int) -> list[int]:
    """Return at most 2048 rows of ``count``, drawn at random, in their order."""
    if count <= MOST:
        return list(range(count))
    return sorted(np.random.default_rng([seed, 1]).choice(count, MOST, replace=False).tolist())
