"""Naive concatenation: both factors as one undivided vector through one network; the ablation's neighbour of ``hffm``.

The paper does not say what its naive row concatenates. Here the number of condition tokens is that of ``hffm``, so
that the two differ in how they fuse and not in how much they can carry.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from anastyle import FUSERS, Condition, ConfigError, FactorDims, Fuser, Keep, Reading, TextDims


@FUSERS.register
class Concat(Fuser):
    """Fuses without branches, norms or marks of kind: no token belongs to one factor."""

    needs = frozenset({"factors"})

    @dataclass
    class Config(Fuser.Config):
        """Sizes, those of ``hffm`` by default."""

        hidden_dim: int = 256
        tokens: int = 2

    def __init__(self, config: Config, *, text: TextDims | None = None, dims: FactorDims | None, width: int) -> None:
        super().__init__(config)
        if dims is None:
            raise ConfigError("fuser: concat fuses factors, but encoder is null. Name an encoder and an aligner.")
        sizes = [prod(shape) for shape in dims]
        self.anatomy_null, self.style_null = (nn.Parameter(0.02 * torch.randn(size)) for size in sizes)
        self.layers = nn.Sequential(
            nn.Linear(sum(sizes), config.hidden_dim),
            nn.GELU(),
            nn.Linear(config.hidden_dim, config.tokens * width),
            nn.Unflatten(1, (config.tokens, width)),
        )

    def forward(self, reading: Reading, keep: Keep | None = None) -> Condition:
        """Return ``tokens`` condition tokens, all of which may be attended to."""
        assert reading.factors is not None
        anatomy, style = (factor.flatten(1) for factor in reading.factors)
        if keep is not None:
            anatomy = shown(anatomy, self.anatomy_null, keep.anatomy)
            style = shown(style, self.style_null, keep.style)
        tokens = self.layers(torch.cat([anatomy, style], dim=1))  # (B, tokens, width)
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


def shown(factor: Tensor, null: Tensor, keep: Tensor) -> Tensor:
    """Return a factor (B, D), or its null (D,) where ``keep`` (B,) is False."""
    return torch.where(keep[:, None], factor, null.to(factor.dtype))
