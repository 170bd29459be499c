"""Pairs of held-out captions whose anatomy, and whose style, are exchanged: images for the leakage matrix."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from anastyle.data.images import unsigned
from anastyle.interfaces import Backbone
from anastyle.painting.chain import Guidance, Reader, denoise
from anastyle.painting.prompts import Prompt, by_factor
from anastyle.records import Caption
from anastyle.settings import GenerateSettings
from anastyle.streams import noise


class Swapped(NamedTuple):
    """Images of M pairs of captions; the first caption's noise everywhere but in ``noise``. uint8 (M, 3, H, W) each."""

    same: Tensor  # the first caption's anatomy and style
    anatomy: Tensor  # the second's anatomy, the first's style
    style: Tensor  # the first's anatomy, the second's style
    noise: Tensor  # as ``same``, from other noise


def pairs(captions: Sequence[Caption], wanted: int) -> int:
    """Return how many pairs there are: caption ``i`` with ``i + pairs``, where all of them have both fields."""
    count = min(wanted, len(captions) // 2)
    told = all(caption.anatomy and caption.style for caption in captions[: 2 * count])
    return count if told else 0


@torch.no_grad()
def swap(
    reader: Reader,
    backbone: Backbone,
    captions: Sequence[Caption],
    keys: list[str],
    settings: GenerateSettings,
    *,
    seed: int,
    device: torch.device,
) -> Swapped:
    """Paint every pair of captions four times. Words are read as ``anastyle sample --anatomy --style`` reads them."""
    count = len(captions) // 2
    first, second = captions[:count], captions[count : 2 * count]
    same = [by_factor(a.anatomy, a.style) for a in first]
    asked: dict[str, list[Prompt]] = {
        "same": same,
        "anatomy": [by_factor(b.anatomy, a.style) for a, b in zip(first, second, strict=True)],
        "style": [by_factor(a.anatomy, b.style) for a, b in zip(first, second, strict=True)],
        "noise": same,
    }
    reader.to(device).eval()
    backbone.to(device).eval()

    def painted(field: str) -> Tensor:
        images = []
        for start in range(0, count, settings.batch_size):
            rows = slice(start, start + settings.batch_size)
            drawn = noise(backbone.noise_shape(), seed, "swap", keys[rows], int(field == "noise")).to(device)
            latent = denoise(reader, backbone, asked[field][rows], drawn, steps=settings.steps,
                             guidance=Guidance(settings.guidance))  # fmt: skip
            images.append(unsigned(backbone.decode(latent).image))
        return torch.cat(images)

    return Swapped(*(painted(field) for field in Swapped._fields))
