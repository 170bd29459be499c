"""What the parts of the model are, and what flows between them.

    image     --Encoder-->   Factors     what the words should come to mean
    caption   --Embedder-->  Embedded    what a frozen language model makes of the words
    Embedded  --Aligner-->   Reading     the same factors, read off the words
    Reading   --Fuser---->   Condition   what a backbone attends to
    Condition --Backbone-->  Sample      an image

Shapes: B batch, H and W pixels, N tokens of a factor, D their width, T text tokens, E their width,
L condition tokens. Images are in [-1, 1], masks in {0, 1}.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pathlib import Path

    from anastyle.weights import Checkpoint

from anastyle.records import Caption

Losses = dict[str, Tensor]
"""Named scalar terms. The experiment file weights them."""


class Factors(NamedTuple):
    """What an image or a caption says, in two separate parts."""

    anatomy: Tensor  # (B, N_a, D_a)
    style: Tensor  # (B, N_s, D_s)


class FactorDims(NamedTuple):
    """Tokens and width of each factor. The paper: one token of 8 each."""

    anatomy: tuple[int, int]  # (N_a, D_a)
    style: tuple[int, int]  # (N_s, D_s)


class Embedded(NamedTuple):
    """What a frozen language model makes of captions."""

    tokens: Tensor  # (B, T, E)
    mask: Tensor  # (B, T) bool, True where there is a word
    pooled: Tensor  # (B, P)


class TextDims(NamedTuple):
    """Widths of what an embedder gives."""

    token: int  # E
    pooled: int  # P


class Reading(NamedTuple):
    """What an aligner gave: factors, or tokens, or both."""

    factors: Factors | None = None
    tokens: Tensor | None = None  # (B, T, E)
    mask: Tensor | None = None  # (B, T) bool
    pooled: Tensor | None = None  # (B, P)


class Keep(NamedTuple):
    """Which factors of each sample are shown; the others give way to their null."""

    anatomy: Tensor  # (B,) bool
    style: Tensor  # (B,) bool


class Condition(NamedTuple):
    """What a backbone attends to."""

    tokens: Tensor  # (B, L, width)
    mask: Tensor  # (B, L) bool, True where a token may be attended to
    pooled: Tensor | None = None  # (B, P)


class Sample(NamedTuple):
    """What a backbone paints."""

    image: Tensor  # (B, 3, H, W) in [-1, 1]
    mask: Tensor | None = None  # (B, 1, H, W) in [0, 1]


class Encoding(NamedTuple):
    """What of a factorised image can be shown: factor maps and the image rebuilt from them."""

    factors: Factors
    maps: Tensor | None  # (B, K, H, W) one-hot anatomy maps
    reconstruction: Tensor | None  # (B, 3, H, W)


@dataclass
class Batch:
    """Some records of a split, with whatever frozen encodings the stage asked for."""

    keys: list[str]
    index: Tensor  # (B,) positions in the split
    image: Tensor | None = None  # (B, 3, H, W) in [-1, 1]
    mask: Tensor | None = None  # (B, 1, H, W) in {0, 1}
    label: Tensor | None = None  # (B,) class index
    captions: list[Caption] = field(default_factory=list)
    embedded: Embedded | None = None
    latent: Tensor | None = None  # what Backbone.encode gave
    target: Factors | None = None  # what Encoder gave
    step: int = 0  # the optimizer step it is for


class Component(nn.Module, ABC):
    """A part that an experiment file names and configures."""

    @dataclass
    class Config:
        """The person's choices. What the program knows arrives as keyword arguments."""

    version: ClassVar[int] = 1  # raised when the same options come to train something else; stored stages are left then
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the pretrained weights a config asks for; they decide the outcome as much as the config does."""
        return []


class Encoder(Component):
    """Splits an image into anatomy and style. ``(config, *, image_size)``"""

    dims: FactorDims
    looks: ClassVar[tuple[str, ...]] = ("image",)  # the fields of a batch that ``targets`` looks at, where it has them

    @abstractmethod
    def forward(self, image: Tensor) -> Factors:
        """Return the factors of images (B, 3, H, W); in eval mode the same answer every time."""

    def targets(self, batch: Batch) -> Factors:
        """Return what the words about a batch should come to mean; whatever is known of it may help."""
        assert batch.image is not None
        return self(batch.image)

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """Return the training terms of a batch with images and masks."""

    def describe(self, image: Tensor) -> Encoding:
        """Return factors, and the maps and reconstruction a report can show."""
        return Encoding(self(image), None, None)


class Embedder(Component):
    """A frozen language model. ``(config)``, then ``fit`` once on the training captions."""

    dims: TextDims

    def fit(self, captions: list[str]) -> None:
        """Learn whatever the embedder takes from the training captions; pretrained ones take nothing."""

    @abstractmethod
    def embed(self, captions: list[str]) -> Embedded:
        """Return token and pooled embeddings of B captions; deterministic."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Name the model and its weights, for the cache of embeddings."""

    @classmethod
    def language(cls, config: Any) -> str:
        """Name whose words it writes, as ``Backbone.language`` names whose a base has read; empty: its own, fitted."""
        return getattr(config, "model", None) or getattr(config, "path", None) or ""

    def rehearse(self, words: int) -> None:
        """Compute one caption of that many words without reading any, for the accounting on the meta device."""

    def export(self, folder: Path) -> dict[str, Any]:
        """Write all it needs into a folder and return the options that load it from there."""
        raise NotImplementedError(f"{type(self).__name__} cannot be exported")


class Aligner(Component):
    """Reads factors or tokens off embedded captions. ``(config, *, text: TextDims, dims: FactorDims | None)``"""

    gives: ClassVar[frozenset[str]]  # of {"factors", "tokens"}
    trained: ClassVar[bool] = False  # does it need the align stage, and so an encoder?
    dims: FactorDims | None = None  # of the factors it gives, where they are not the encoder's

    @abstractmethod
    def forward(self, embedded: Embedded) -> Reading:
        """Return the reading of B captions."""

    def losses(self, embedded: Embedded, target: Factors) -> Losses:
        """Return the alignment terms against the encoder's factors."""
        raise NotImplementedError(f"{type(self).__name__} is not trained by alignment")

    def standardised(self, factors: Factors) -> Factors:
        """Return an encoder's factors in the units of a reading."""
        return factors


def fused_dims(encoder: Encoder | None, aligner: Aligner | None) -> FactorDims | None:
    """Return the dims of the factors that reach a fuser: the aligner's own, else its encoder's."""
    return (aligner.dims if aligner else None) or (encoder.dims if encoder else None)


class Fuser(Component):
    """Turns a reading into condition tokens.

    ``(config, *, text: TextDims, dims: FactorDims | None, width: int)``: ``width`` is the backbone's.
    """

    needs: ClassVar[frozenset[str]]  # of {"factors", "tokens"}
    gives_pooled: ClassVar[bool] = False  # does it hand the pooled embedding of a caption on?

    def settle(self, embedder: Embedder, aligner: Aligner) -> None:
        """Learn of the words' side what can be known before training; most fusers need nothing."""

    @abstractmethod
    def forward(self, reading: Reading, keep: Keep | None = None) -> Condition:
        """Return the condition; each factor has a null, used where ``keep`` is False."""


class Autoencoder(Component):
    """Maps images to latents and back. ``(config)``"""

    channels: int  # of a latent
    factor: int  # pixels per latent cell, along a side

    @classmethod
    def trains(cls, config: Any) -> bool:
        """Say whether the autoencode stage has anything to do: not where weights are used as they are."""
        return True

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """Return latent moments (B, 2 * channels, h, w): mean and log variance, scaled to unit variance."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of scaled latents (B, channels, h, w)."""

    @torch.no_grad()
    def calibrate(self, image: Tensor) -> None:
        """Measure the latents' scale on training images (B, 3, H, W), once the autoencode stage has ended."""

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """Return the training terms of a batch with images."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Name the model and its weights, for the cache of latents."""


Guide = Callable[[float], "list[tuple[Condition, float]]"]
"""Says, at each time in [0, 1] (1 is pure noise), which conditions are asked and with which weights."""


class Backbone(Component):
    """A latent diffusion model. ``(config, *, autoencoder: Autoencoder, image_size: int)``

    Sampling is written once, in ``anastyle.sampling``, over ``predict`` and a guide.
    """

    width: int  # of a condition token
    needs_pooled: ClassVar[bool] = False  # must a condition have a pooled embedding?
    pooled: int | None = None  # then of how many numbers
    encodes: tuple[str, ...] = ("image",)  # the fields of a batch that ``encode`` looks at
    reads: tuple[str, ...] = ("latent",)  # the fields of a batch that its losses look at
    prediction: Literal["epsilon", "v_prediction", "sample"]
    exports: tuple[str, ...] = ()  # formats that ``export`` writes, in the order it can

    @classmethod
    def language(cls, config: Any) -> str:
        """Name whose words its checkpoint was pretrained to read, by what an embedder comes with; empty: none."""
        return getattr(config, "path", None) or ""

    @abstractmethod
    def encode(self, batch: Batch) -> Tensor:
        """Return what of a batch is frozen and worth caching, (B, ...)."""

    @abstractmethod
    def losses(self, batch: Batch, condition: Condition) -> Losses:
        """Return the denoising terms of a batch with ``latent`` filled in."""

    @abstractmethod
    def predict(self, latent: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the prediction (B, C, h, w) for noisy latents at integer timesteps (B,)."""

    @abstractmethod
    def scheduler(self, steps: int) -> Any:
        """Return a diffusers scheduler, set to that many sampling steps."""

    def checkpointing(self, on: bool) -> None:
        """Compute activations twice in training rather than keep them, where the network can."""

    def adapter_sizes(self) -> dict[str, int]:
        """Return what adapters would count, by the set of layers they are put on; for the accounting."""
        return {}

    @abstractmethod
    def noise_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample's latent, (C, h, w)."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Sample:
        """Return what the latents (B, C, h, w) show."""

    def merge(self) -> None:
        """Fold adapters into the weights they adapt, for good: fewer operations, the same predictions."""

    def export(self, kind: str, folder: Path, chain: Any) -> None:
        """Write one of ``exports`` into a new folder, read it back and compare; ``chain`` is the whole run's."""
        raise NotImplementedError(f"{type(self).__name__} has no format '{kind}'")


class Feature(Component):
    """A network whose outputs distances are measured on. ``(config, *, classes: int)``"""

    def fit(self, split: Any, *, seed: int = 0, device: str | torch.device = "cpu") -> None:
        """Learn from a training split; most features have nothing to learn."""

    def save(self, path: Path) -> None:
        """Write what ``fit`` learned as one safetensors file."""

    def load(self, path: Path) -> Feature:
        """Read what ``save`` wrote."""
        return self

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Return features (B, F) of images (B, 3, H, W) in [-1, 1]."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Name the network and its weights, for the protocol card."""
