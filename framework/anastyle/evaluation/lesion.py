"""Where a lesion lies in an image, and the grids that a closer look lays on it: unrolled around it, or a patch of it.

Coordinates run from -1 to 1 over the image, as ``torch.nn.functional.grid_sample`` has them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class View(NamedTuple):
    """How each lesion is turned, mirrored, zoomed and moved before a closer look: nothing that changes what it is."""

    turn: Tensor  # (B, 2, 2)
    shift: Tensor  # (B, 2), in half image widths


def extent(focus: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centre (B, 2) and the radius (B,) of what a focus (B, h, w) lies on, in half image widths."""
    weight = focus**2  # certainty counts
    total = weight.sum(dim=(1, 2)) + 1e-6
    y, x = (cells(n, focus.device) for n in focus.shape[-2:])
    centre = torch.stack([(weight.sum(dim=1) * x).sum(dim=1), (weight.sum(dim=2) * y).sum(dim=1)], dim=1)
    area = 4 * focus.mean(dim=(1, 2))  # the image is 2 x 2
    return centre / total[:, None], (area / torch.pi).sqrt().clamp(0.15, 0.65)


def placed(plane: Tensor, centre: Tensor, radius: Tensor, view: View | None) -> Tensor:
    """Return the grid (B, h, w, 2) that lays a plane (h, w, 2) on lesions."""
    if view is None:
        return centre[:, None, None] + radius[:, None, None, None] * plane
    turned = torch.einsum("bij,hwj->bhwi", view.turn, plane)
    return (centre + view.shift)[:, None, None] + radius[:, None, None, None] * turned


def polar(radii: int, angles: int) -> Tensor:
    """Return the plane (radii, angles, 2) of circles out to beyond the tips of a star of unit mean radius."""
    radius = (torch.arange(radii) + 0.5) / radii * 2.1
    angle = torch.arange(angles) / angles * 2 * torch.pi
    return radius[:, None, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)


def square(size: int) -> Tensor:
    """Return the plane (size, size, 2) over [-1, 1]."""
    axis = cells(size, torch.device("cpu"))
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)


def cells(count: int, device: torch.device) -> Tensor:
    """Return the middles of equal cells from -1 to 1."""
    return torch.linspace(-1, 1, 2 * count + 1, device=device)[1::2]


def sample(image: Tensor, grid: Tensor) -> Tensor:
    """Return what an image (B, C, H, W) shows at a grid (B, h, w, 2)."""
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def views(count: int, rng: torch.Generator, device: torch.device) -> View:
    """Return random views: any angle, half of them mirrored, a tenth nearer or farther, a little aside."""
    angle = 2 * torch.pi * torch.rand(count, generator=rng)
    zoom = 0.9 + 0.2 * torch.rand(count, generator=rng)
    mirror = torch.where(torch.rand(count, generator=rng) < 0.5, -1.0, 1.0)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    turn = torch.stack([torch.stack([cos * mirror, -sin], dim=1), torch.stack([sin * mirror, cos], dim=1)], dim=1)
    return View(turn.to(device), (0.06 * (torch.rand(count, 2, generator=rng) - 0.5)).to(device))
