"""No fusion: the backbone attends to the words themselves, as PixArt-alpha and Stable Diffusion do."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anastyle import FUSERS, Aligner, Condition, ConfigError, Embedder, FactorDims, Fuser, Keep, Reading, TextDims
from anastyle.devices import to_device


@FUSERS.register
class TextTokens(Fuser):
    """Passes text tokens on, through a linear map where the backbone has another width."""

    needs = frozenset({"tokens"})
    gives_pooled = True

    @dataclass
    class Config(Fuser.Config):
        """How words are passed on."""

        dropped: Literal["learned", "empty", "zeros"] = "learned"
        """What a dropped caption becomes: a learned token; the empty caption, as Stable Diffusion 1.5 and PixArt-alpha
        were trained; or zeros in every place, as Stable Diffusion XL was. Diffusers' pipelines know the last two."""
        merge: float = 0.0
        """Share of training captions whose neighbouring words are averaged into one to four tokens. It prepares a base
        model for conditions that say as much in fewer tokens."""

    def __init__(self, config: Config, *, text: TextDims, dims: FactorDims | None, width: int) -> None:
        super().__init__(config)
        self.project: nn.Module = nn.Identity() if text.token == width else nn.Linear(text.token, width)
        self.null = nn.Parameter(torch.randn(1, width) * 0.02) if config.dropped == "learned" else None
        self.empty: Condition | None = None

    def settle(self, embedder: Embedder, aligner: Aligner) -> None:
        """Read the empty caption, if it is wanted."""
        if self.config.dropped != "empty":
            return
        if any(parameter.requires_grad for parameter in aligner.parameters()):
            raise ConfigError(
                "fuser.dropped: the aligner is trained, and what it reads off the empty caption would change.\n"
                "  Set it to learned, or choose an aligner without weights, such as token_reader."
            )
        _, tokens, mask, pooled = aligner(embedder.embed([""]))
        self.empty = Condition(tokens, mask, pooled)

    def forward(self, reading: Reading, keep: Keep | None = None) -> Condition:
        """Return (B, T, width); a caption that is not kept, whole, becomes the null."""
        if reading.tokens is None or reading.mask is None:
            raise ValueError("text_tokens reads tokens, and this reading has none")
        said = Condition(reading.tokens, reading.mask, reading.pooled)
        if self.training and self.config.merge > 0:
            tokens, mask = merge_neighbours(said.tokens, said.mask, self.config.merge)
            said = said._replace(tokens=tokens, mask=mask)
        if keep is None:
            return said._replace(tokens=self.project(said.tokens))
        kept = keep.anatomy & keep.style  # words carry both factors: they stay or go together
        if self.null is None:
            said = instead(said, kept, self.nothing(said))
            return said._replace(tokens=self.project(said.tokens))
        said = said._replace(tokens=self.project(said.tokens))
        nothing = Condition(self.null.to(said.tokens.dtype)[None], torch.ones_like(said.mask[:1, :1]))
        return instead(said, kept, nothing)

    def nothing(self, said: Condition) -> Condition:
        """Return what a dropped caption says, (1, T, E): the empty caption, or zeros in every place."""
        if self.config.dropped == "zeros":
            return Condition(torch.zeros_like(said.tokens[:1]), torch.ones_like(said.mask[:1]))
        if self.empty is None:
            raise ValueError("text_tokens has not read the empty caption: settle comes first")
        self.empty = to_device(self.empty, said.tokens.device)
        return self.empty


def instead(said: Condition, kept: Tensor, nothing: Condition) -> Condition:
    """Return the conditions of the captions that are kept (B,), and ``nothing``, (1, T, E), of the others.

    A pooled embedding that nothing stands in for becomes zeros.
    """
    length = max(said.mask.shape[1], nothing.mask.shape[1])
    one, other = widened(said, length), widened(nothing, length)
    pooled = None
    if said.pooled is not None:
        pooled = torch.where(kept[:, None], said.pooled, 0 * said.pooled if other.pooled is None else other.pooled)
    tokens = torch.where(kept[:, None, None], one.tokens, other.tokens)
    return Condition(tokens, torch.where(kept[:, None], one.mask, other.mask), pooled)


def widened(said: Condition, length: int) -> Condition:
    """Return a condition of as many places, those it had not masked."""
    more = length - said.mask.shape[1]
    return said._replace(tokens=F.pad(said.tokens, (0, 0, 0, more)), mask=F.pad(said.mask, (0, more)))


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
