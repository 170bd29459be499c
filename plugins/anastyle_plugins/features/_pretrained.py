"""Feature networks whose weights somebody else trained: how an image is brought to them, and what names them.

An image is brought whole, without a crop, to the side the network was trained at; ``resize`` says how. Side, resize,
mean and standard deviation are part of the fingerprint, as much as the weights are.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from omegaconf import MISSING
from torch import Tensor, nn

from anastyle import DataError, Feature
from anastyle.evaluation.resizing import Resize, resized
from anastyle.weights import Checkpoint, find, identity

Colour = tuple[float, float, float]
IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, standard deviation
HALF: Colour = (0.5, 0.5, 0.5)
FILES = ("config.json", "model.safetensors | model.safetensors.index.json")  # of a transformers model


class Pretrained(Feature):
    """A frozen network; a subclass loads it, and says what it takes and gives."""

    @dataclass
    class Config(Feature.Config):
        """Which weights, and how images are brought to them."""

        path: str = MISSING
        revision: str | None = None
        resize: Resize = "antialiased"
        """``antialiased`` bicubic, or ``legacy_tf``: the bilinear of TensorFlow 1, as old papers had it."""
        batch_size: int = 32

    name: ClassVar[str]  # in the fingerprint
    colours: ClassVar[tuple[Colour, Colour]]  # mean and standard deviation, of images in [0, 1]
    side: int  # pixels

    @abstractmethod
    def look(self, image: Tensor) -> Tensor:
        """Return features (B, F) of images (B, 3, side, side), normalised."""

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the weights that ``path`` points to."""
        return [Checkpoint("feature.path", config.path, FILES, config.revision)]

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Return features (B, F) of images (B, 3, H, W) in [-1, 1]."""
        return torch.cat([self.look(self.prepared(part)).float() for part in image.split(self.config.batch_size)])

    def prepared(self, image: Tensor) -> Tensor:
        """Return images (B, 3, side, side) as the network takes them, of images (B, 3, H, W) in [-1, 1]."""
        mean, std = (image.new_tensor(colour)[:, None, None] for colour in self.colours)
        return (resized(image.float(), self.side, self.config.resize) / 2 + 0.5 - mean) / std

    def train(self, mode: bool = True) -> "Pretrained":
        """Stay in eval mode: the network is frozen."""
        return super().train(False)

    def fingerprint(self) -> str:
        """Name the network, the size and resize of its images, and by a hash the weights and all preprocessing."""
        return f"{self.name}-{self.side}px-{self.config.resize}-{self._hash}"

    @cached_property
    def _hash(self) -> str:
        weights = identity(self.checkpoints(self.config)[0])
        text = f"{weights} {self.side} {self.config.resize} {self.colours}"
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def load(cls: Any, checkpoint: Checkpoint) -> Any:
    """Return a transformers model of a local folder, in float32; code that lies beside the weights is never run.

    On the meta device it is an empty one of the class's own sizes.

    Raises:
        MissingError: the weights are not here.
        DataError: they are another model's.
    """
    if torch.get_default_device().type == "meta":  # where no weights are wanted
        return cls(cls.config_class())
    folder = find(checkpoint)
    try:
        with quiet():  # of a whole model, the rest is not loaded: there is nothing to warn of
            model, report = cls.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=torch.float32,
                output_loading_info=True,
            )  # fmt: skip
    except (OSError, RuntimeError, ValueError) as error:
        raise foreign(folder, cls.__name__, str(error).splitlines()[0][:200]) from None
    if report["missing_keys"]:
        raise foreign(folder, cls.__name__, f"{min(report['missing_keys'])} is not among the weights")
    return model.requires_grad_(False).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Have transformers report nothing but errors, and show no progress."""
    from transformers.utils import logging  # late: a long import

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def lively(network: Any, seed: int = 0) -> Any:
    """Return a network with random weights through which a signal passes, not dying away from layer to layer."""
    rng = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight, generator=rng)
    return network


def foreign(where: Path, model: str, reason: str) -> DataError:
    """Return the error for weights that are not the model's."""
    return DataError(
        f"feature.path: {where}: not the weights of a {model}: {reason}.\n  Name a folder that holds them."
    )
