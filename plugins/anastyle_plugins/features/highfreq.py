"""High-frequency features: how much fine detail an image has, at which scale and in which direction.

The second reading of the paper's third metric, whose text takes a low value for kept "high-frequency details" (the
first is ``domain``). Nothing is trained: the numbers are radially binned log power of the upper spectrum.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anastyle import FEATURES, Feature
from anastyle.data.images import OPPONENT

FLOOR = (2 / 255) ** 2  # power of one grey level of images in [-1, 1]: less than that is invisible


@FEATURES.register
class HighFreq(Feature):
    """Log power in rings and directions of the spectrum above ``cutoff``, and the shape of the residual's histogram."""

    @dataclass
    class Config(Feature.Config):
        """How finely the spectrum is cut."""

        rings: int = 12
        directions: int = 4
        cutoff: float = 0.25
        """Where the upper spectrum begins, as a share of the highest frequency."""

    def __init__(self, config: Config, *, classes: int = 0) -> None:
        super().__init__(config)
        self.register_buffer("opponent", torch.tensor(OPPONENT), persistent=False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Return features (B, 3 * rings + directions + 4) of images (B, 3, H, W) in [-1, 1], H and W 16 or more."""
        if min(image.shape[-2:]) < 16:
            raise ValueError(f"highfreq: images are {tuple(image.shape[-2:])}; a spectrum needs 16 pixels a side")
        colour = torch.einsum("oc,bchw->bohw", self.opponent, image.float())  # (B, 3, H, W)
        power = self.power(colour)  # (B, 3, H, W // 2 + 1)
        ring, direction = self.bins(*image.shape[-2:], device=image.device)
        rings = binned(power, ring, self.config.rings).flatten(1)
        directions = binned(power[:, :1], direction, self.config.directions).flatten(1)
        directions = directions - directions.mean(dim=1, keepdim=True)  # the level is already in the rings
        return torch.cat([rings, directions, residual(colour[:, :1])], dim=1)

    def power(self, image: Tensor) -> Tensor:
        """Return the power spectrum of the windowed image, (B, C, H, W // 2 + 1)."""
        height, width = image.shape[-2:]
        window = torch.outer(*(torch.hann_window(n, periodic=False, device=image.device) for n in (height, width)))
        centred = image - image.mean(dim=(2, 3), keepdim=True)
        return torch.fft.rfft2(centred * window, norm="ortho").abs() ** 2 / (window**2).mean()

    def bins(self, height: int, width: int, *, device: Any) -> tuple[Tensor, Tensor]:
        """Return each frequency's ring and direction, (H, W // 2 + 1); -1 below the cutoff and in the corners."""
        y = 2 * torch.fft.fftfreq(height, device=device)[:, None]
        x = 2 * torch.fft.rfftfreq(width, device=device)[None]
        radius = torch.hypot(x, y)
        kept = (radius >= self.config.cutoff) & (radius < 1)
        ring = ((radius - self.config.cutoff) / (1 - self.config.cutoff) * self.config.rings).long()
        turn = torch.remainder(torch.atan2(y, x) / torch.pi + 0.5 / self.config.directions, 1)
        direction = (turn * self.config.directions).long().clamp(max=self.config.directions - 1)
        return torch.where(kept, ring, -1), torch.where(kept, direction, -1)

    def fingerprint(self) -> str:
        """Name the features by their options."""
        text = f"highfreq-2 {sorted(asdict(self.config).items())}"
        return "highfreq-" + hashlib.sha256(text.encode()).hexdigest()[:8]


def binned(power: Tensor, index: Tensor, count: int) -> Tensor:
    """Return the log mean power (B, C, count) of each bin; empty bins of small images count as the floor."""
    member = F.one_hot(index.flatten() + 1, count + 1)[:, 1:].to(power)  # (H * W', count)
    total = power.flatten(2) @ member
    return (total / member.sum(dim=0).clamp(min=1) + FLOOR).log()


def residual(lightness: Tensor) -> Tensor:
    """Return log spread and peakedness of what two blurs take away, (B, 4): edges are peaked, grain is not."""
    parts = []
    for size in (3, 5):
        padded = F.pad(lightness, (size // 2,) * 4, mode="reflect")
        detail = lightness - F.avg_pool2d(padded, size, stride=1)
        variance = detail.pow(2).mean(dim=(1, 2, 3)) + FLOOR
        peaked = detail.pow(4).mean(dim=(1, 2, 3)) / variance**2 + 1e-8
        parts += [variance.log(), peaked.log().clamp(0, 6)]
    return torch.stack(parts, dim=1)
