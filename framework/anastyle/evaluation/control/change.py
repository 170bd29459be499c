"""What a swapped text changes in an image, measured: for sets of which no factors are known.

A segmenter says where the lesion is, before and after. Anatomy is its outline; style is the colour and the texture
within each image's own outline; the surroundings are what lies outside both. Each change stands beside what other noise
under the same words changes: a text that moves less than noise does has no say.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anastyle.data.images import OPPONENT
from anastyle.evaluation.bootstrap import share
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.values import Value

CHANGE = "change/"
OWN = {"anatomy": ("outline",), "style": ("colour", "texture")}  # what a text should change
OTHER = {"anatomy": ("colour", "texture", "surroundings"), "style": ("outline",)}  # what it should leave alone
STREAM = 5  # of the bootstrap's draws
FEWEST = 10  # pairs with a lesion in both images, below which nothing is said
BLURS = (3, 5, 9)  # pixels a side; a band of fineness lies between one and the next
WORDS = {
    "outline": "1 - IoU of the lesions",
    "colour": "distance of the lesions' mean opponent colours, in units of their spread over real test images",
    "texture": "distance of the lesions' log energies in three bands, in units of their spread over real test images",
    "surroundings": "mean absolute difference of the pixels outside both lesions, of 1",
}
LEAST = 0.01  # of a unit: an ultrasound set has next to no colour of its own
Segmenter = Callable[[Tensor], Tensor]  # uint8 (n, 3, H, W) to bool (n, 1, H, W)
Array = NDArray[np.float64]


class Look(NamedTuple):
    """Images and what is measured of them."""

    lesion: Tensor  # (n, 1, H, W) 0 or 1
    colour: Tensor  # (n, 3) of the lesion
    texture: Tensor  # (n, bands) log energies in the lesion
    image: Tensor  # (n, 3, H, W) in [0, 1]


def changes(
    images: Mapping[str, Tensor], unit: "Look", segmenter: Segmenter, name: str, settings: Settings
) -> dict[str, Value]:
    """Return ``change/TEXT/WHAT``: how much exchanging TEXT changes what it should, and what it should leave alone.

    ``outline``: 1 - IoU of the lesions. ``colour``, ``texture``: distance within the lesions, in units of their spread
    over real images. ``surroundings``: mean absolute difference of pixels outside both lesions, of 1.

    Arguments:
        images: ``same``, ``anatomy`` and ``style`` (what was exchanged), ``noise`` (other noise), uint8 (M, 3, H, W).
        unit: a look at real images, for the units.
        name: of the segmenter, for the protocol.

    Pairs in which either image has no lesion are left out; of fewer than ten, nothing is returned.
    """
    found = {field: look(image, segmenter) for field, image in images.items()}
    seen = found["same"].lesion.flatten(1).any(dim=1)
    moved = difference(found["same"], found["noise"], unit)
    values = {}
    for text in OWN:
        changed = difference(found["same"], found[text], unit)
        kept = (seen & found[text].lesion.flatten(1).any(dim=1)).numpy()
        still = (seen & found["noise"].lesion.flatten(1).any(dim=1)).numpy()
        if min(kept.sum(), still.sum()) < FEWEST:
            continue
        for what in (*OWN[text], *OTHER[text]):
            floor = float(moved[what][still].mean())
            protocol = _protocol(text, what, name, settings)
            values[f"{CHANGE}{text}/{what}"] = Value(
                *share(changed[what][kept], settings, stream=STREAM),
                floor=floor,
                n=int(kept.sum()),
                protocol=protocol,
                samples=np.where(kept, changed[what], np.nan),
            )
    return values


def look(image: Tensor, segmenter: Segmenter) -> Look:
    """Measure uint8 images (n, 3, H, W)."""
    lesion = segmenter(image).float()
    shown = image.float() / 255
    colour = torch.einsum("oc,nchw->nohw", torch.tensor(OPPONENT), shown)
    grey = shown.mean(dim=1, keepdim=True)
    levels = [grey, *(F.avg_pool2d(grey, size, 1, size // 2, count_include_pad=False) for size in BLURS)]
    bands = torch.cat([fine - coarse for fine, coarse in pairwise(levels)], dim=1)
    return Look(lesion, within(colour, lesion), (within(bands**2, lesion) + 1e-5).log(), shown)


def within(values: Tensor, lesion: Tensor) -> Tensor:
    """Return the mean of values (n, C, H, W) over lesions (n, 1, H, W), (n, C)."""
    return (values * lesion).sum(dim=(2, 3)) / lesion.sum(dim=(2, 3)).clamp(min=1)


def difference(one: Look, other: Look, unit: Look) -> dict[str, Array]:
    """Return how far images (n) are from one another, by what is looked at, each (n,)."""
    both, either = one.lesion * other.lesion, (one.lesion + other.lesion).clamp(max=1)
    outside = 1 - either
    pixels = (one.image - other.image).abs().mean(dim=1, keepdim=True)
    told = {
        "outline": 1 - both.sum(dim=(1, 2, 3)) / either.sum(dim=(1, 2, 3)).clamp(min=1),
        "colour": apart(one.colour, other.colour, unit.colour),
        "texture": apart(one.texture, other.texture, unit.texture),
        "surroundings": within(pixels, outside)[:, 0],
    }
    return {what: amount.double().numpy() for what, amount in told.items()}


def apart(one: Tensor, other: Tensor, unit: Tensor) -> Tensor:
    """Return the distance of (n, C) from (n, C), each number in units of its spread over (m, C), (n,)."""
    return ((one - other) / unit.std(dim=0).clamp(min=LEAST)).square().mean(dim=1).sqrt()


def _protocol(text: str, what: str, name: str, settings: Settings) -> str:
    return (
        f"Change when a caption's {text} was exchanged for another's and the noise stayed: {WORDS[what]}; lesions by "
        f"{name}; floor: other noise, same words; interval: 95 %, {settings.draws} bootstrap samples of pairs"
    )
