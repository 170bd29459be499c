"""Token-level readers: learned queries, one for each token of a factor, attend to the words of a caption.

The paper's heads read both factors off one pooled vector. Here nothing passes through one: each query gathers the words
that its part of the image is about, and is taught what the encoder measured there.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anastyle import ALIGNERS, Aligner, ConfigError, Embedded, FactorDims, Factors, Losses, Reading, TextDims
from anastyle_plugins.aligners._scale import RunningScale


@ALIGNERS.register
class QueryReader(Aligner):
    """Reads ``width`` numbers for each token of an encoder's factors; a linear map of them is the visual code."""

    gives = frozenset({"factors"})
    trained = True

    @dataclass
    class Config(Aligner.Config):
        """Sizes."""

        width: int = 64
        heads: int = 4
        layers: int = 2
        dropout: float = 0.1
        temperature: float = 0.1
        """Of the contrast between the captions of a batch."""

    def __init__(self, config: Config, *, text: TextDims, dims: FactorDims | None) -> None:
        super().__init__(config)
        if dims is None:
            raise ConfigError("aligner: query_reader reads an encoder's factors, but encoder is null. Name one.")
        self.counts = [count for count, _ in dims]
        self.dims = FactorDims(*((count, config.width) for count in self.counts))
        self.words = nn.Sequential(nn.LayerNorm(text.token), nn.Linear(text.token, config.width))
        self.queries = nn.Parameter(0.5 * torch.randn(sum(self.counts), config.width))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                config.width, config.heads, 2 * config.width, config.dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.codes = nn.ParameterList(
            nn.Parameter(torch.randn(count, config.width, size) / config.width**0.5) for count, size in dims
        )
        self.scales = nn.ModuleList(RunningScale(count * size) for count, size in dims)

    def forward(self, embedded: Embedded) -> Reading:
        """Return the factors, anatomy (B, N_a, width) and style (B, N_s, width), that B captions speak of."""
        words = self.words(embedded.tokens)
        read = self.queries.expand(len(words), -1, -1)
        for layer in self.layers:
            read = layer(read, words, memory_key_padding_mask=~embedded.mask)
        return Reading(Factors(*self.norm(read).split(self.counts, dim=1)))

    def losses(self, embedded: Embedded, target: Factors) -> Losses:
        """``anatomy``, ``style``: MSE of the codes read off the tokens to the standardised targets, token by token.

        ``contrast``: each caption's codes among those of the batch (InfoNCE, van den Oord et al. 2018), token by token.
        """
        if self.training:
            for scale, factor in zip(self.scales, target, strict=True):
                cast(RunningScale, scale).update(factor.flatten(1))
        goal = self.standardised(target)
        factors = self(embedded).factors
        assert factors is not None
        read = Factors(*(torch.einsum("bnw,nwd->bnd", tokens, code) for tokens, code in zip(factors, self.codes)))
        return {
            "anatomy": distance(read.anatomy, goal.anatomy),
            "style": distance(read.style, goal.style),
            "contrast": contrast(read.anatomy, goal.anatomy, self.config.temperature)
            + contrast(read.style, goal.style, self.config.temperature),
        }

    def standardised(self, factors: Factors) -> Factors:
        """Bring an encoder's factors into standard units."""
        return Factors(*(scale(factor) for scale, factor in zip(self.scales, factors, strict=True)))


def distance(read: Tensor, goal: Tensor) -> Tensor:
    """Return the MSE of tokens (B, N, D), the mean over tokens of the mean over those numbers that vary."""
    varies = (goal.std(dim=0) > 0).float()  # (N, D)
    error = (read - goal).square().mean(dim=0) * varies
    return (error.sum(dim=1) / varies.sum(dim=1).clamp(min=1)).mean()


def contrast(read: Tensor, goal: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE of tokens (B, N, D) with those of the same place in the batch, the mean over tokens."""
    one, other = (F.normalize(tokens, dim=-1, eps=1e-3).transpose(0, 1) for tokens in (read, goal))  # (N, B, D)
    logits = one @ other.transpose(1, 2) / temperature  # (N, B, B)
    own = torch.arange(logits.shape[-1], device=logits.device).expand(len(logits), -1)
    return F.cross_entropy(logits.flatten(0, 1), own.flatten())
