"""Naive concatenation: both factors as one undivided vector through one network; the ablation's neighbour of ``hffm``.

The paper does not say what its naive row concatenates. Here all that is not fusion is as in ``hffm``: LayerNorm, hidden
width, initialisation, the number of tokens, a mark for each half of them. What is left is that no token has a branch of
its own, and so none belongs to one factor.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from anastyle import FUSERS, Condition, ConfigError, FactorDims, Fuser, Keep, Reading, TextDims
from anastyle_plugins.fusers._branch import branch


@FUSERS.register
class Concat(Fuser):
    """Fuses without branches: no token belongs to one factor."""

    version = 2
    needs = frozenset({"factors"})

    @dataclass
    class Config(Fuser.Config):
        """Sizes, those of ``hffm`` by default."""

        hidden_dim: int = 256
        tokens: int = 2
        """Condition tokens of both factors together, an even number."""
        layer_norm: bool = True

        def __post_init__(self) -> None:
            if self.tokens < 2 or self.tokens % 2:
                raise ConfigError(f"tokens={self.tokens}: must be even, twice those of an hffm to compare with.")

    def __init__(self, config: Config, *, text: TextDims | None = None, dims: FactorDims | None, width: int) -> None:
        super().__init__(config)
        if dims is None:
            raise ConfigError("fuser: concat fuses factors, but encoder is null. Name an encoder and an aligner.")
        sizes = [prod(shape) for shape in dims]
        self.anatomy_null, self.style_null = (nn.Parameter(0.02 * torch.randn(size)) for size in sizes)
        self.layers = branch(sum(sizes), config.hidden_dim, width, tokens=config.tokens, layer_norm=config.layer_norm)
        self.types = nn.Parameter(0.02 * torch.randn(2, width))

    def forward(self, reading: Reading, keep: Keep | None = None) -> Condition:
        """Return ``tokens`` condition tokens, all of which may be attended to."""
        assert reading.factors is not None
        anatomy, style = (factor.flatten(1) for factor in reading.factors)
        if keep is not None:
            anatomy = shown(anatomy, self.anatomy_null, keep.anatomy)
            style = shown(style, self.style_null, keep.style)
        marks = self.types.repeat_interleave(self.config.tokens // 2, dim=0)
        tokens = self.layers(torch.cat([anatomy, style], dim=1)) + marks  # (B, tokens, width)
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


def shown(factor: Tensor, null: Tensor, keep: Tensor) -> Tensor:
    """Return a factor (B, D), or its null (D,) where ``keep`` (B,) is False."""
    return torch.where(keep[:, None], factor, null.to(factor.dtype))
