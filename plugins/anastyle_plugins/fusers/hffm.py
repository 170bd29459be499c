"""The paper's fusion (HFFM): each factor through a small network of its own, then a learned mark of its kind.

With factors of 8 numbers and PixArt's width of 4096: 2,118,176 parameters, and two nulls of 4096 that are ours.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from anastyle import FUSERS, Condition, ConfigError, FactorDims, Fuser, Keep, Reading, TextDims
from anastyle_plugins.fusers._branch import branch


@FUSERS.register
class HFFM(Fuser):
    """Anatomy tokens, then style tokens; a factor of several tokens is read whole, flattened.

    Deviation: the paper trains no null and guides with zeros it never saw; here each factor has a learned null.
    """

    needs = frozenset({"factors"})

    @dataclass
    class Config(Fuser.Config):
        """Sizes, the paper's by default."""

        hidden_dim: int = 256
        tokens: int = 1
        """Condition tokens per factor."""
        layer_norm: bool = True

    def __init__(self, config: Config, *, text: TextDims | None = None, dims: FactorDims | None, width: int) -> None:
        super().__init__(config)
        if dims is None:
            raise ConfigError("fuser: hffm fuses factors, but encoder is null. Name an encoder and an aligner.")
        self.anatomy, self.style = (
            branch(prod(dim), config.hidden_dim, width, tokens=config.tokens, layer_norm=config.layer_norm)
            for dim in dims
        )
        self.types = nn.Parameter(0.02 * torch.randn(2, width))
        self.nulls = nn.Parameter(0.02 * torch.randn(2, config.tokens, width))

    def forward(self, reading: Reading, keep: Keep | None = None) -> Condition:
        """Return 2 * ``tokens`` condition tokens, all of which may be attended to."""
        assert reading.factors is not None
        anatomy, style = reading.factors
        tokens = torch.cat(
            [
                self.shown(self.anatomy(anatomy.flatten(1)), 0, keep and keep.anatomy),
                self.shown(self.style(style.flatten(1)), 1, keep and keep.style),
            ],
            dim=1,
        )  # (B, 2 * tokens, width)
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def shown(self, tokens: Tensor, kind: int, keep: Tensor | None) -> Tensor:
        """Return a factor's tokens (B, tokens, width), or its null where ``keep`` (B,) is False, marked by kind."""
        if keep is not None:
            tokens = torch.where(keep[:, None, None], tokens, self.nulls[kind].to(tokens.dtype))
        return tokens + self.types[kind]
