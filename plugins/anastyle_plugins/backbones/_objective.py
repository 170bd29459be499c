"""What a latent diffusion model is trained on: which timesteps, how errors are weighted, how colours are compared."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

TIMESTEPS = 1000


def draw_timesteps(kind: Literal["uniform", "logit_normal"], count: int, device: torch.device) -> Tensor:
    """Return integer timesteps (B,); ``logit_normal``: half of them by that density (Esser et al. 2024)."""
    if kind == "uniform":
        return torch.randint(0, TIMESTEPS, (count,), device=device)
    middle, anywhere = torch.randn(count, device=device).sigmoid(), torch.rand(count, device=device)
    share = torch.where(torch.rand(count, device=device) < 0.5, middle, anywhere)
    return (share * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)


def snr_weights(kept: Tensor, gamma: float | None, prediction: str) -> Tensor:
    """Return min-SNR loss weights (B,) (Hang et al. 2023) for shares of signal power ``kept`` (B,); None: all one."""
    if gamma is None:
        return torch.ones_like(kept)
    snr = kept / (1 - kept)
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1)


def contour_weights(mask: Tensor, side: int, weight: float) -> Tensor:
    """Return weights (B, 1, side, side) of mean one, higher by ``weight`` where a mask (B, 1, H, W) begins or ends."""
    share = F.adaptive_avg_pool2d(mask.float(), side)  # of each latent cell that the mask covers
    band = F.max_pool2d(share, 3, 1, 1) + F.max_pool2d(-share, 3, 1, 1)  # 1 across an outline, 0 far from any
    weights = 1 + weight * band
    return weights / weights.mean((1, 2, 3), keepdim=True)


def colour_distance(painted: Tensor, shown: Tensor) -> Tensor:
    """Return how far channel means and standard deviations of images (B, 3, H, W) are apart (facts A8, B1)."""
    means = F.mse_loss(painted.mean((2, 3)), shown.mean((2, 3)))
    return means + F.mse_loss(painted.std((2, 3)), shown.std((2, 3)))
