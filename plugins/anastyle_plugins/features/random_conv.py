"""Random convolutional features: what an untrained network sees, at three scales. It knows no data and no label.

Distances on ``domain`` look through a network that was taught the factors which the judge is asked for; these share
nothing with it. Filters drawn at random, rectified and pooled, keep much of what images differ in (Jarrett et al. 2009,
Saxe et al. 2011): here contrast, colour, texture, blur and coarse layout. Their distance has units of its own.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from anastyle import FEATURES, Feature

SCALES = 3
GREY_LEVEL = 2 / 255  # of images in [-1, 1]: less spread than this is invisible


@FEATURES.register
class RandomConv(Feature):
    """How much random filters answer at three scales, how much filters of their rectified answers do, and a layout.

    Weights follow from the seed alone; nothing is trained. Numbers are of the order of 1.
    """

    @dataclass
    class Config(Feature.Config):
        """How many filters a scale has, and which."""

        channels: int = 8
        """F is 64 for the default, 12 + 6.5 channels. Keep it below the number of images."""
        seed: int = 0

    def __init__(self, config: Config, *, classes: int = 0) -> None:
        super().__init__(config)
        rng, many = torch.Generator().manual_seed(config.seed), config.channels
        self.register_buffer("edges", drawn(many, 3, rng), persistent=False)
        self.register_buffer("corners", drawn(many // 2, many, rng), persistent=False)
        self.register_buffer("colours", torch.linalg.qr(torch.randn(3, 3, generator=rng)).Q, persistent=False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Return features (B, F) of images (B, 3, H, W) in [-1, 1], H and W 16 or more."""
        if min(image.shape[-2:]) < 16:
            raise ValueError(f"random_conv: images are {tuple(image.shape[-2:])}; it needs 16 pixels a side")
        seen, found = image.float(), []
        layout = [torch.einsum("oc,bchw->bohw", self.colours, seen)]
        for scale in range(SCALES):
            edges = filtered(seen, self.edges)  # (B, channels, h, w)
            strength = edges.abs()
            found += [spread(edges), spread(filtered(strength, self.corners))]
            if scale == 0:
                layout += [strength[:, : self.config.channels // 2]]
            seen = F.avg_pool2d(seen, 2)
        cells = [F.adaptive_avg_pool2d(part, 2).flatten(1) for part in layout]
        return torch.cat([*found, *cells], dim=1)

    def fingerprint(self) -> str:
        """Name the features by their options."""
        return f"random_conv-1-{self.config.channels}-{self.config.seed}"


def drawn(outputs: int, inputs: int, rng: torch.Generator) -> Tensor:
    """Return random filters (outputs, inputs, 5, 5) of unit norm, each blind to a level: its sum is nothing."""
    filters = torch.randn(outputs, inputs, 5, 5, generator=rng)
    filters = filters - filters.mean(dim=(2, 3), keepdim=True)
    return filters / filters.flatten(1).norm(dim=1)[:, None, None, None]


def filtered(image: Tensor, filters: Tensor) -> Tensor:
    """Return the filters' answers (B, channels, H, W) to (B, C, H, W), which is mirrored at its edges."""
    return F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), filters)


def spread(answer: Tensor) -> Tensor:
    """Return the log standard deviation of each channel (B, C), over 2 and around 1; the invisible counts as none."""
    return (answer.var(dim=(2, 3)) + GREY_LEVEL**2).log() / 4 + 1
