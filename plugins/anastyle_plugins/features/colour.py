"""Colour features: which colours lie where, and how much they vary there. Nothing is trained.

They see a wrong palette and wrong lighting; they are blind to anatomy and to fine detail.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from anastyle import FEATURES, Feature
from anastyle.data.images import OPPONENT


@FEATURES.register
class Colour(Feature):
    """Mean and log spread of three opponent colours in each cell of a grid, (B, 6 * cells^2)."""

    @dataclass
    class Config(Feature.Config):
        """How fine the grid is."""

        cells: int = 3

    def __init__(self, config: Config, *, classes: int = 0) -> None:
        super().__init__(config)
        self.register_buffer("opponent", torch.tensor(OPPONENT), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        colour = torch.einsum("oc,bchw->bohw", self.opponent, image.float())
        mean = F.adaptive_avg_pool2d(colour, self.config.cells)
        square = F.adaptive_avg_pool2d(colour**2, self.config.cells)
        spread = (square - mean**2).clamp(min=1e-6).log() / 8  # of the order of the means
        return torch.cat([mean.flatten(1), spread.flatten(1)], dim=1)

    def fingerprint(self) -> str:
        return f"colour-1-{self.config.cells}x{self.config.cells}"
