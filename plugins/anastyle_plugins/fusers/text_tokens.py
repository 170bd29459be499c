"""No fusion: the backbone attends to the words themselves, as PixArt-alpha and Stable Diffusion do."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anastyle import FUSERS, Condition, FactorDims, Fuser, Keep, Reading, TextDims


@FUSERS.register
class TextTokens(Fuser):
    """Passes text tokens on, through a linear map where the backbone has another width."""

    needs = frozenset({"tokens"})
    gives_pooled = True

    @dataclass
    class Config(Fuser.Config):
        """How words are passed on."""

        merge: float = 0.0
        """Share of training captions whose neighbouring words are averaged into one to four tokens. It prepares a base
        model for conditions that say as much in fewer tokens."""

    def __init__(self, config: Config, *, text: TextDims, dims: FactorDims | None, width: int) -> None:
        super().__init__(config)
        self.project: nn.Module = nn.Identity() if text.token == width else nn.Linear(text.token, width)
        self.null = nn.Parameter(torch.randn(1, width) * 0.02)  # stands for the empty caption

    def forward(self, reading: Reading, keep: Keep | None = None) -> Condition:
        """Return (B, T, width); a caption that is not kept, whole, becomes the learned null."""
        if reading.tokens is None or reading.mask is None:
            raise ValueError("text_tokens reads tokens, and this reading has none")
        tokens, mask = reading.tokens, reading.mask
        if self.training and self.config.merge > 0:
            tokens, mask = merge_neighbours(tokens, mask, self.config.merge)
        tokens = self.project(tokens)
        if keep is not None:
            kept = (keep.anatomy & keep.style)[:, None]  # words carry both factors: they stay or go together
            first = torch.zeros_like(mask)
            first[:, 0] = True
            tokens = torch.where(kept[..., None], tokens, self.null.to(tokens.dtype))
            mask = torch.where(kept, mask, first)
        pooled = reading.pooled
        if keep is not None and pooled is not None:
            pooled = torch.where(kept, pooled, torch.zeros_like(pooled))
        return Condition(tokens, mask, pooled)


def merge_neighbours(tokens: Tensor, mask: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Average runs of neighbouring tokens in a random share of the captions; shapes stay (B, T, E) and (B, T)."""
    batch, length, _ = tokens.shape
    pieces = torch.randint(1, 5, (batch, 1), device=tokens.device)
    place = torch.arange(length, device=tokens.device)[None]
    count = mask.sum(1, keepdim=True)
    piece = (place * pieces // count).clamp(max=pieces - 1)  # (B, T): which run a token belongs to
    assign = nn.functional.one_hot(piece, length).to(tokens.dtype) * mask[..., None]  # (B, T, T)
    size = assign.sum(1)[..., None]
    merged = assign.transpose(1, 2) @ tokens / size.clamp(min=1).sqrt()  # a sum of n unlike vectors grows as sqrt(n)
    chosen = torch.rand(batch, 1, device=tokens.device) < share
    merged_mask = size[..., 0] > 0
    return torch.where(chosen[..., None], merged, tokens), torch.where(chosen, merged_mask, mask)
