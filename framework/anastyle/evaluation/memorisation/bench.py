"""A training set and real held-out images, ready for any generated ones to be looked at beside them."""

from typing import NamedTuple

import torch
from torch import Tensor

from anastyle.evaluation.memorisation.calibrate import FEWEST_HELD, leaks, threshold
from anastyle.evaluation.memorisation.search import Nearest, Pictures, Read, described, search
from anastyle.evaluation.memorisation.spaces import Features, Pixels, Space
from anastyle.evaluation.reference import Settings
from anastyle.interfaces import Feature

PIXEL = "pixel"


class Look(NamedTuple):
    """Some images beside the training set."""

    near: dict[str, Nearest]  # by space
    authentic: Tensor  # (n,) bool: farther from its nearest training image than that one is from the next

    def only(self, rows: Tensor) -> "Look":
        """Return the look at some of the images, rows (n,) bool."""
        near = {name: Nearest(*(field[rows] for field in found)) for name, found in self.near.items()}
        return Look(near, self.authentic[rows])


class Bench:
    """The training set as vectors, and what held-out images keep from it.

    Attributes:
        usual: the look at held-out images, without those that show a training image again.
        leaked: how many those are.
        thresholds: space -> ratio at which a copy begins; empty where too few held-out images are left.
    """

    def __init__(self, train: Pictures, held: Pictures, features: dict[str, Feature] | None = None) -> None:
        side = min(Settings.max_side, train.pixels(torch.tensor([0])).shape[-1])
        networks = {name: Features(network, side) for name, network in (features or {}).items()}
        self.train = train
        self.spaces: dict[str, Space] = {PIXEL: Pixels(), **networks}
        self.vectors = {name: described(space, train) for name, space in self.spaces.items()}
        real = self.look(held.pixels, len(held))
        leaked = leaks(real.near[PIXEL], train, held)
        self.usual, self.leaked = real.only(~leaked), int(leaked.sum())
        enough = len(self.usual.authentic) >= FEWEST_HELD
        self.thresholds = {name: threshold(near.ratio) for name, near in self.usual.near.items() if enough}

    def look(self, read: Read, count: int) -> Look:
        """Look at images beside the training set."""
        near = search(self.spaces, read, torch.arange(count), self.vectors)
        rows, at = near[PIXEL].index.unique(return_inverse=True)
        pixels = {PIXEL: self.spaces[PIXEL]}
        between = search(pixels, self.train.pixels, rows, self.vectors, own=True)[PIXEL].distance
        return Look(near, near[PIXEL].distance > between[at])
