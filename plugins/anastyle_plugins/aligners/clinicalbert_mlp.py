"""The paper's aligner: two small heads read anatomy and style off one pooled caption embedding (VG-MedGen, Eq. 2).

With ClinicalBERT's 768 numbers and one token of 8 for each factor: 2 x 397,832 + 402,688 = 1,198,352 parameters.
"""

from dataclasses import dataclass
from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anastyle import ALIGNERS, Aligner, ConfigError, Embedded, FactorDims, Factors, Losses, Reading, TextDims
from anastyle_plugins.aligners._scale import RunningScale


@ALIGNERS.register
class ClinicalBertMLP(Aligner):
    """Maps a pooled embedding to factors; a decoder maps them back, so that they keep what the caption said.

    Known flaw of the paper's loss: areas are never negative and alike in all images, so a constant answer already
    has a cosine near 1, and magnitudes are free. ``standardise`` mends both.
    """

    gives = frozenset({"factors"})
    trained = True

    @dataclass
    class Config(Aligner.Config):
        """Sizes and choices, the paper's by default."""

        hidden_dim: int = 512
        dropout: float = 0.1
        standardise: bool = False
        """Align with standardised targets, and add the term ``magnitude``. Readings are then in standard units."""

    def __init__(self, config: Config, *, text: TextDims, dims: FactorDims | None) -> None:
        super().__init__(config)
        if dims is None:
            raise ConfigError("aligner: clinicalbert_mlp reads an encoder's factors, but encoder is null. Name one.")
        self.dims = dims
        sizes = [prod(shape) for shape in dims]
        self.anatomy, self.style = (
            nn.Sequential(
                nn.Linear(text.pooled, config.hidden_dim),
                nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.hidden_dim, size),
            )
            for size in sizes
        )
        self.decoder = nn.Sequential(
            nn.Linear(sum(sizes), config.hidden_dim), nn.ReLU(), nn.Linear(config.hidden_dim, text.pooled)
        )
        if config.standardise:
            self.target_anatomy, self.target_style = (RunningScale(size) for size in sizes)

    def forward(self, embedded: Embedded) -> Reading:
        """Return the factors, anatomy (B, N_a, D_a) and style (B, N_s, D_s), that B captions speak of."""
        anatomy, style = self.anatomy(embedded.pooled), self.style(embedded.pooled)
        return Reading(Factors(anatomy.unflatten(1, self.dims.anatomy), style.unflatten(1, self.dims.style)))

    def losses(self, embedded: Embedded, target: Factors) -> Losses:
        """Cosine distance of each factor to its target, and the pooled embedding's reconstruction (MSE).

        With ``standardise`` also ``magnitude``, the MSE to the standardised targets. The paper's weights: 1, 1, 0.5.
        """
        if self.training and self.config.standardise:
            self.target_anatomy.update(target.anatomy.flatten(1))
            self.target_style.update(target.style.flatten(1))
        read = cast(Factors, self(embedded).factors)
        goal = self.standardised(target)
        rebuilt = self.decoder(torch.cat([read.anatomy.flatten(1), read.style.flatten(1)], dim=1))
        losses = {
            "anatomy": cosine_distance(read.anatomy, goal.anatomy),
            "style": cosine_distance(read.style, goal.style),
            "reconstruction": F.mse_loss(rebuilt, embedded.pooled),
        }
        if self.config.standardise:
            losses["magnitude"] = F.mse_loss(read.anatomy, goal.anatomy) + F.mse_loss(read.style, goal.style)
        return losses

    def standardised(self, factors: Factors) -> Factors:
        """Bring an encoder's factors into the units of a reading; without ``standardise``, they already are."""
        if not self.config.standardise:
            return factors
        return Factors(self.target_anatomy(factors.anatomy), self.target_style(factors.style))


def cosine_distance(read: Tensor, goal: Tensor) -> Tensor:
    """Return the mean of 1 - cosine over all tokens of (B, N, D)."""
    same = torch.ones(read.shape[0] * read.shape[1], device=read.device)
    return F.cosine_embedding_loss(read.flatten(0, 1), goal.flatten(0, 1), same)
