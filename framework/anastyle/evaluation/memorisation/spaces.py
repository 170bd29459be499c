"""Where likeness is looked for: in small pixels, and in the features of a network."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from anastyle.data.audit import GREY
from anastyle.evaluation.features import features_of
from anastyle.evaluation.resizing import resized
from anastyle.interfaces import Feature

SIDE, MARGIN = 24, 2  # pixels of a compared window, and how far it may move within the thumbnail
ZOOMS = (20, 22, 26, 28)  # pixels of a thumbnail that are also seen as a window


class Space(Protocol):
    """Turns uint8 images (b, 3, H, W), two or more, into vectors whose distances can be compared."""

    words: str  # for the protocol

    def vectors(self, images: Tensor, /) -> Tensor:
        """Return the images as they are, (b, F)."""
        ...

    def views(self, images: Tensor, /) -> Tensor:
        """Return what a copy of them may look like, (b, V, F): as they are, mirrored, then whatever else."""
        ...


class Pixels:
    """Thumbnails in colour, each channel less its mean, all of it over its contrast; an even image has none.

    Views are moved by up to 7 % of the side, or zoomed by up to 17 %, each also mirrored. Brightness, contrast, colour
    cast, noise, JPEG, blur and small crops leave an image where it is; turning it by a right angle does not.
    """

    words = (
        f"pixels at {SIDE} x {SIDE} (antialiased bicubic, each channel less its mean, over the contrast; the least "
        "distance over small shifts and zooms and the mirror image)"
    )

    def vectors(self, images: Tensor, /) -> Tensor:
        return even(thumbnails(images)[..., MARGIN:-MARGIN, MARGIN:-MARGIN])

    def views(self, images: Tensor, /) -> Tensor:
        small = thumbnails(images)
        pairs = torch.stack([windows(small), windows(small.flip(-1))], dim=2)  # (b, W, 2, 3, SIDE, SIDE)
        return even(pairs.flatten(1, 2))


class Features:
    """What a network makes of images, as they are and mirrored; larger ones are brought to ``side`` pixels first."""

    def __init__(self, network: Feature, side: int) -> None:
        self.network, self.side = network, side
        self.words = f"features {network.fingerprint()} (the image or its mirror image)"

    def vectors(self, images: Tensor, /) -> Tensor:
        return torch.from_numpy(features_of(self.network, images, self.side)).float()

    def views(self, images: Tensor, /) -> Tensor:
        return torch.stack([self.vectors(images), self.vectors(images.flip(-1))], dim=1)


def thumbnails(images: Tensor) -> Tensor:
    """Return uint8 images (b, 3, H, W) in levels around zero, with a margin, (b, 3, 28, 28)."""
    return resized(images.float() / 127.5 - 1, SIDE + 2 * MARGIN) * 127.5


def windows(small: Tensor) -> Tensor:
    """Return windows on thumbnails (b, 3, 28, 28), (b, W, 3, SIDE, SIDE): the middle one, moved ones, zoomed ones."""
    moved = small.unfold(2, SIDE, 1).unfold(3, SIDE, 1).flatten(2, 3).transpose(1, 2)  # (b, 25, 3, SIDE, SIDE)
    edges = [(small.shape[-1] - zoom) // 2 for zoom in ZOOMS]
    parts = [small[..., edge : edge + zoom, edge : edge + zoom] for edge, zoom in zip(edges, ZOOMS, strict=True)]
    zoomed = [F.interpolate(part, (SIDE, SIDE), mode="bicubic", antialias=True) for part in parts]
    return torch.cat([moved.roll(-(moved.shape[1] // 2), dims=1), torch.stack(zoomed, dim=1)], dim=1)


def even(images: Tensor) -> Tensor:
    """Return images (..., 3, S, S) as vectors (..., F), level and contrast taken out."""
    apart = (images - images.mean(dim=(-2, -1), keepdim=True)).flatten(-3)
    return apart / (apart.norm(dim=-1, keepdim=True) + GREY * apart.shape[-1] ** 0.5)
