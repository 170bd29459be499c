"""No fusion: the backbone attends to the words themselves, as PixArt-alpha and Stable Diffusion do."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anastyle import FUSERS, Aligner, Condition, ConfigError, Embedder, FactorDims, Fuser, Keep, Reading, TextDims
from anastyle.devices import to_device
from anastyle_plugins.fusers._branch import branch


@FUSERS.register
class TextTokens(Fuser):
    """Passes text tokens on, as they are or through a network that is learnt."""

    version = 2
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
        project: Literal["auto", "branch"] = "auto"
        """``auto``: a linear map where the backbone has another width than the words, else none. ``branch``: every word
        through one network like those of ``hffm``, and a learned mark, so that the words' interface to the backbone is
        learnt from nothing as that of factors is."""
        hidden_dim: int = 256
        """Of the ``branch``."""

    def __init__(self, config: Config, *, text: TextDims, dims: FactorDims | None, width: int) -> None:
        super().__init__(config)
        self.project = projection(config, text.token, width)
        self.mark = nn.Parameter(0.02 * torch.randn(width)) if config.project == "branch" else None
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
            return self.projected(said)
        kept = keep.anatomy | keep.style  # words carry both factors: they go where neither is to be shown
        if self.null is None:
            said = instead(said, kept, self.nothing(said))
            return self.projected(said)
        said = self.projected(said)
        nothing = Condition(self.null.to(said.tokens.dtype)[None], torch.ones_like(said.mask[:1, :1]))
        return instead(said, kept, nothing)

    def projected(self, said: Condition) -> Condition:
        """Return words (B, T, E) in the backbone's width."""
        tokens = self.project(said.tokens)
        return said._replace(tokens=tokens if self.mark is None else tokens + self.mark)

    def nothing(self, said: Condition) -> Condition:
        """Return what a dropped caption says, (1, T, E): the empty caption, or zeros in every place."""
        if self.config.dropped == "zeros":
            return Condition(torch.zeros_like(said.tokens[:1]), torch.ones_like(said.mask[:1]))
        if self.empty is None:
            raise ValueError("text_tokens has not read the empty caption: settle comes first")
        self.empty = to_device(self.empty, said.tokens.device)
        return self.empty


def projection(config: TextTokens.Config, token: int, width: int) -> nn.Module:
    """Return what takes words (B, T, E) to (B, T, width)."""
    if config.project == "branch":
        return nn.Sequential(branch(token, config.hidden_dim, width), nn.Flatten(-2))
    return nn.Identity() if token == width else nn.Linear(token, width)


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
