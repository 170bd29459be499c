"""The nearest training image of each of many images, in every space, in chunks that fit any memory."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from anastyle.evaluation.memorisation.spaces import Space

NEIGHBOURS = 50  # training images that a distance is compared with, as in Carlini et al. 2023
CHUNK = 64  # images looked at together
TINY = 1e-6  # an image at no distance from all of them is not unusually near to one
Read = Callable[[Tensor], Tensor]  # rows (b,) -> uint8 images (b, 3, H, W)


class Pictures(Protocol):
    """What is read of a split of real images."""

    keys: list[str]
    groups: list[str]  # the patient, the lesion; empty where it is not known

    def __len__(self) -> int: ...

    def pixels(self, indices: Tensor, /) -> Tensor: ...  # uint8 (b, 3, S, S)


class Pictured:
    """Pictures that are at hand; images are uint8 (n, 3, S, S)."""

    def __init__(self, keys: list[str], images: Tensor) -> None:
        self.keys, self.groups, self.images = keys, [""] * len(keys), images

    def __len__(self) -> int:
        return len(self.keys)

    def pixels(self, indices: Tensor, /) -> Tensor:
        return self.images[indices]


class Nearest(NamedTuple):
    """Each image's nearest training image in one space."""

    index: Tensor  # (n,) its row
    distance: Tensor  # (n,)
    ratio: Tensor  # (n,) the distance over its mean to the nearest NEIGHBOURS: small where one stands out


def described(space: Space, pictures: Pictures) -> Tensor:
    """Return real images as vectors, (m, F)."""
    return torch.cat([space.vectors(pictures.pixels(rows)) for rows in chunks(torch.arange(len(pictures)))])


def search(
    spaces: dict[str, Space], read: Read, rows: Tensor, train: dict[str, Tensor], *, own: bool = False
) -> dict[str, Nearest]:
    """Return the nearest training image of each of ``rows``, by space.

    Arguments:
        train: the training images as vectors (m, F), by space.
        own: the rows are training images, and none is its own neighbour.
    """
    found: dict[str, list[Nearest]] = {name: [] for name in spaces}
    for part in chunks(rows):
        images = read(part)
        for name, space in spaces.items():
            found[name].append(nearest(space.views(images), train[name], part if own else None))
    return {name: Nearest(*(torch.cat(field) for field in zip(*parts, strict=True))) for name, parts in found.items()}


def nearest(views: Tensor, train: Tensor, own: Tensor | None = None) -> Nearest:
    """Return the nearest of training vectors (m, F) to images in several views (b, V, F).

    The first two views, as it is and mirrored, propose the nearest NEIGHBOURS; all views decide among those.

    Arguments:
        own: rows of the training images that the images are themselves, (b,).
    """
    first = torch.cdist(views[:, :2].flatten(0, 1), train).unflatten(0, (-1, 2)).amin(dim=1)  # (b, m)
    if own is not None:
        first[torch.arange(len(own)), own] = torch.inf
    close = first.topk(min(NEIGHBOURS, len(train) // 2), largest=False).indices  # (b, k)
    distances = torch.cdist(views, train[close]).amin(dim=1)  # (b, k)
    distance, at = distances.min(dim=1)
    ratio = (distance + TINY) / (distances.mean(dim=1) + TINY)
    return Nearest(close.gather(1, at[:, None])[:, 0], distance, ratio)


def chunks(rows: Tensor) -> Iterator[Tensor]:
    """Yield the rows in parts of much the same size, so that none is left over alone."""
    yield from rows.tensor_split(-(-len(rows) // CHUNK))
