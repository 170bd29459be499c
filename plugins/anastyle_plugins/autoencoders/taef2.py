"""TAEF2: a tiny pretrained autoencoder for natural images (madebyollin/taesd, MIT): 8x down, 32 channels.

A folder holds ``encoder.safetensors`` and ``decoder.safetensors``; their keys number the modules of a sequence. Latents
leave this file centred and scaled to unit variance.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import MISSING
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anastyle import AUTOENCODERS, Autoencoder, Batch, DataError, Losses
from anastyle.checkpoint import tensors_hash
from anastyle.devices import no_autocast
from anastyle.weights import Checkpoint, find

CHANNELS, WIDTH = 32, 64
FILES = ("encoder.safetensors", "decoder.safetensors")
LOGVAR = -20.0  # the encoder is deterministic: a standard deviation of 5e-5


@AUTOENCODERS.register
class TAEF2(Autoencoder):
    """Frozen; it encodes to a mean alone."""

    @dataclass
    class Config(Autoencoder.Config):
        """Which weights."""

        path: str = MISSING
        """The folder with encoder.safetensors and decoder.safetensors."""
        scale: float = 1.284
        """Latents are (raw - shift) * scale; measured on dermoscopy, endoscopy and ultrasound images."""
        shift: float = 0.014

    channels = CHANNELS
    factor = 8

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.encoder, self.decoder = encoder(), decoder()
        if torch.get_default_device().type != "meta":  # where no weights are wanted
            folder = find(self.checkpoints(config)[0])
            for part, file in zip((self.encoder, self.decoder), FILES, strict=True):
                fill(part, folder / file)
        self.requires_grad_(False)

    @classmethod
    def trains(cls, config: Any) -> bool:
        """Never."""
        return False

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the weights that ``path`` points to."""
        return [Checkpoint("autoencoder.path", config.path, FILES)]

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Write random weights in the published layout and return the options that load them."""
        path = folder / "taef2"
        path.mkdir(parents=True, exist_ok=True)
        for part, file in zip((encoder(), decoder()), FILES, strict=True):
            save_file({name: value.half() for name, value in part.state_dict().items()}, path / file)
        return {"path": str(path)}

    def encode(self, image: Tensor) -> Tensor:
        """Return moments (B, 64, h, w): scaled latents, and a log variance that is a small constant. In float32."""
        with no_autocast(image.device):
            raw = self.encoder(image.float() / 2 + 0.5)
        mean = (raw - self.config.shift) * self.config.scale
        return torch.cat([mean, torch.full_like(mean, LOGVAR)], dim=1)

    def decode(self, latent: Tensor) -> Tensor:
        """Return images (B, 3, H, W); not clamped, so that a loss on them has a gradient everywhere. In float32."""
        with no_autocast(latent.device):
            return self.decoder(latent.float() / self.config.scale + self.config.shift) * 2 - 1

    def losses(self, batch: Batch) -> Losses:
        """Reconstruction (L1), to be looked at: nothing here is trained."""
        assert batch.image is not None
        mean, _ = self.encode(batch.image).chunk(2, dim=1)
        return {"reconstruction": F.l1_loss(self.decode(mean), batch.image)}

    def fingerprint(self) -> str:
        """Return a hash of the weights and of the scale."""
        return tensors_hash(self.state_dict(), f"{self.config.scale} {self.config.shift}")[:16]


class Block(nn.Module):
    """Three convolutions around which the input is added; ``pooled``: first it adds what all places say together."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
        self.pool = (
            nn.Sequential(
                nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False),
                nn.GroupNorm(4, 4 * WIDTH),
                nn.ReLU(),
                nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
            )
            if pooled
            else None
        )

    def forward(self, hidden: Tensor) -> Tensor:
        if self.pool is not None:
            hidden = hidden + self.pool(hidden)
        return F.relu(self.conv(hidden) + hidden)


class Squash(nn.Module):
    """Keeps latents within [-3, 3]."""

    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(latent / 3) * 3


def conv(inputs: int = WIDTH, outputs: int = WIDTH, **options: Any) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size, or halves it with ``stride=2``."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def blocks(pooled: bool) -> list[nn.Module]:
    """Return the three blocks of a level; at the lowest resolution they are pooled."""
    return [Block(pooled) for _ in range(3)]


def encoder() -> nn.Sequential:
    """Return images (B, 3, H, W) in [0, 1] to raw latents (B, 32, H / 8, W / 8)."""
    layers: list[nn.Module] = [conv(3), Block()]
    for pooled in (False, False, True):
        layers += [conv(stride=2, bias=False), *blocks(pooled)]
    return nn.Sequential(*layers, conv(outputs=CHANNELS))


def decoder() -> nn.Sequential:
    """Return raw latents (B, 32, h, w) to images (B, 3, 8h, 8w) in about [0, 1]."""
    layers: list[nn.Module] = [Squash(), conv(CHANNELS), nn.ReLU()]
    for pooled in (True, False, False):
        layers += [*blocks(pooled), nn.Upsample(scale_factor=2), conv(bias=False)]
    return nn.Sequential(*layers, Block(), conv(outputs=3))


def fill(part: nn.Sequential, file: Path) -> None:
    """Load a file of weights.

    Raises:
        DataError: it holds something else.
    """
    try:
        weights = load_file(file)
        part.load_state_dict({name: value.float() for name, value in weights.items()})
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[-1].strip()[:200]
        raise DataError(f"autoencoder.path: {file}: is not a part of taef2: {reason}") from None
