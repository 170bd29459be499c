"""Where anatomy maps lie and what shape they have, in a few numbers that a caption could know."""

import torch
import torch.nn.functional as F
from torch import Tensor

HARMONICS = 6
MOMENTS = 7 + HARMONICS  # numbers per map


def moments(maps: Tensor) -> Tensor:
    """Return the place and shape of each map (B, K, H, W) as (B, K, 13); coordinates run from -1 to 1, y downwards.

    0       area, as a share of the image
    1, 2    centroid x, y
    3, 4, 5 variance in x, in y, and covariance: extent and orientation
    6 - 11  |mean of r**2 exp(i m angle)| / mean of r**2 about the centroid, m = 1 to 6, in [0, 1]: lopsided,
            elongated, three-cornered and so on. Their phase is left out, so they do not change when a shape turns,
            as no caption says how it is turned; of the shape moments (Flusser 2000), weighted against outliers.
    12      compactness 4 pi area / perimeter**2: near 1 for a disc, small for a jagged outline

    An empty map is all zeros.
    """
    height, width = maps.shape[-2:]
    x = axis(width, maps)
    y = axis(height, maps)
    total = maps.sum(dim=(2, 3)).clamp(min=1e-6)  # (B, K)
    columns, rows = maps.sum(dim=2), maps.sum(dim=3)  # (B, K, W), (B, K, H)
    centre_x, centre_y = (columns * x).sum(-1) / total, (rows * y).sum(-1) / total
    dx, dy = x - centre_x[..., None], y - centre_y[..., None]  # (B, K, W), (B, K, H)
    right, down = dx[:, :, None, :], dy[:, :, :, None]

    square = right**2 + down**2  # (B, K, H, W)
    turn = torch.complex(*torch.broadcast_tensors(right, down)) / square.sqrt().clamp(min=1e-6)
    weight = maps * square
    spread = weight.sum(dim=(2, 3)).clamp(min=1e-6)
    power, harmonics = torch.ones_like(turn), []
    for _ in range(HARMONICS):
        power = power * turn
        harmonics.append((weight * power).sum(dim=(2, 3)).abs() / spread)

    area = maps.mean(dim=(2, 3))
    compactness = 4 * torch.pi * area * height * width / (perimeter(maps) ** 2 + 1e-6)
    covariance = (maps * right * down).sum(dim=(2, 3)) / total
    variance_x, variance_y = (columns * dx**2).sum(-1) / total, (rows * dy**2).sum(-1) / total
    return torch.stack([area, centre_x, centre_y, variance_x, variance_y, covariance, *harmonics, compactness], dim=-1)


def perimeter(maps: Tensor) -> Tensor:
    """Return the length of each map's outline in pixels, the image's frame included, (B, K)."""
    kernel = maps.new_tensor([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]]) / 32  # Scharr: the same at every angle
    flat = F.pad(maps, (2, 2, 2, 2)).flatten(0, 1).unsqueeze(1)  # (B * K, 1, H + 4, W + 4)
    slope = F.conv2d(flat, torch.stack([kernel, kernel.T]).unsqueeze(1))
    return (slope.square().sum(dim=1) + 1e-12).sqrt().sum(dim=(1, 2)).view(maps.shape[:2])


def axis(size: int, like: Tensor) -> Tensor:
    """Return the centres of ``size`` pixels between -1 and 1."""
    return (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) / size * 2 - 1
