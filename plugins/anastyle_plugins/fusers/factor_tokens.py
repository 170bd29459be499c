"""A condition token for every token of a factor, each through a small network of its own.

``hffm`` flattens a factor before its branch, so that its loudest numbers take most of every condition token. Here a
quiet part of a factor, given as a token of its own, has a place in the condition that no other can take.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anastyle import FUSERS, Condition, ConfigError, FactorDims, Fuser, Keep, Reading, TextDims
from anastyle_plugins.fusers._branch import branch


@FUSERS.register
class FactorTokens(Fuser):
    """Anatomy's tokens, then style's, each with a mark and a null of its own."""

    needs = frozenset({"factors"})

    @dataclass
    class Config(Fuser.Config):
        """Sizes of each network."""

        hidden_dim: int = 64
        tokens: int = 1
        """Condition tokens for each token of a factor."""
        layer_norm: bool = True

    def __init__(self, config: Config, *, text: TextDims | None = None, dims: FactorDims | None, width: int) -> None:
        super().__init__(config)
        if dims is None:
            raise ConfigError("fuser: factor_tokens fuses factors, but encoder is null. Name an encoder, an aligner.")
        self.anatomy, self.style = (
            nn.ModuleList(
                branch(size, config.hidden_dim, width, tokens=config.tokens, layer_norm=config.layer_norm)
                for _ in range(count)
            )
            for count, size in dims
        )
        places = config.tokens * sum(count for count, _ in dims)
        self.marks = nn.Parameter(0.02 * torch.randn(places, width))
        self.nulls = nn.Parameter(0.02 * torch.randn(places, width))

    def forward(self, reading: Reading, keep: Keep | None = None) -> Condition:
        """Return (N_a + N_s) * ``tokens`` condition tokens, all of which may be attended to."""
        assert reading.factors is not None
        shown = [fused(getattr(self, name), factor) for name, factor in reading.factors._asdict().items()]
        tokens = torch.cat(shown, dim=1)  # (B, L, width)
        if keep is not None:
            kept = [keep.anatomy[:, None].expand(shown[0].shape[:2]), keep.style[:, None].expand(shown[1].shape[:2])]
            tokens = torch.where(torch.cat(kept, dim=1)[..., None], tokens, self.nulls.to(tokens.dtype))
        tokens = tokens + self.marks
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


def fused(networks: nn.ModuleList, factor: Tensor) -> Tensor:
    """Return the condition tokens (B, N * tokens, width) of a factor (B, N, D)."""
    return torch.cat([network(token) for network, token in zip(networks, factor.unbind(1), strict=True)], dim=1)
