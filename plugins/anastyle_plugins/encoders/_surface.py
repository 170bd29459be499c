"""What surface an image has, inside a lesion and around it, in a few numbers that a caption could know."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

BLURS = (0.7, 1.4, 2.8)  # pixels of 64; a band lies between one and the next finer
NUMBERS = 5  # of a band
GROUPS = (len(BLURS) * NUMBERS, len(BLURS) * NUMBERS, 6)  # pattern inside, pattern outside, colours
SURFACE = sum(GROUPS)
MARGIN = 2  # pixels of 64 on either side of the outline that belong to neither surface
FAINT = 1e-5  # energy that cannot be seen


def surface(image: Tensor, lesion: Tensor) -> Tensor:
    """Return (B, 36) numbers of images (B, 3, H, W) in [-1, 1]; lesions (B, 1, H, W) are 0 or 1.

    Inside the lesion, then outside it, of the brightness in each of three bands of fineness:

    0   log energy: how much of this fineness there is; grain and pattern differ here
    1   skewness: bright dots or dark ones
    2   log kurtosis: sparse or everywhere
    3   coherence of the structure tensor (Bigun and Granlund 1987), in [0, 1]: streaks
    4   fourfold order, in [0, 1]: lines that cross

    and last the mean red, green and blue inside and outside. None of them changes when the image is turned. Their phase
    is left out: no caption says where a dot is.
    """
    scale = image.shape[-1] / 64
    levels = [image.mean(dim=1, keepdim=True)]
    levels += [blurred(levels[0], width * scale) for width in BLURS]
    inside, outside = sides(lesion, max(1, round(MARGIN * scale)))
    bands = [fine - coarse for fine, coarse in pairwise(levels)]
    colours = [mean_colour(image, side) for side in (inside, outside)]
    return torch.cat([*(described(band, side) for side in (inside, outside) for band in bands), *colours], dim=1)


def mean_colour(image: Tensor, where: Tensor) -> Tensor:
    """Return the mean colour (B, 3) of images (B, 3, H, W) in one place (B, 1, H, W)."""
    return (image * where).sum(dim=(2, 3)) / where.sum(dim=(2, 3)).clamp(min=1)


def sides(lesion: Tensor, margin: int) -> tuple[Tensor, Tensor]:
    """Return where a lesion's surface is, a small one's whole, and where its surroundings are, both (B, 1, H, W)."""
    size = 2 * margin + 1
    inner = 1 - F.max_pool2d(1 - lesion, size, 1, margin)
    outer = 1 - F.max_pool2d(lesion, size, 1, margin)
    enough = inner.sum(dim=(2, 3), keepdim=True) >= size**2
    return torch.where(enough, inner, lesion), outer


def described(band: Tensor, where: Tensor) -> Tensor:
    """Return the five numbers (B, 5) of one band (B, 1, H, W) in one place."""
    share = where / where.sum(dim=(2, 3), keepdim=True).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (values * share).sum(dim=(1, 2, 3))

    energy = mean(band**2)
    steady = energy + FAINT
    right, down = slopes(band)
    length, square, product = right**2 + down**2, right**2 - down**2, 2 * right * down
    slope, across, along = mean(length) + FAINT, mean(square), mean(product)
    # (right + i down)**4 / |.|**2: its angle counts fourfold, its length is the slope's energy
    weight = (length + FAINT).reciprocal()
    four = (mean((square**2 - product**2) * weight) ** 2 + mean(2 * square * product * weight) ** 2).sqrt()
    return torch.stack(
        [
            steady.log(),
            mean(band**3) / steady**1.5,
            (mean(band**4) / steady**2 + 0.1).log(),
            (across**2 + along**2).sqrt() / slope,
            four / slope,
        ],
        dim=1,
    )


def slopes(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return how images (B, C, H, W) rise to the right and downwards, central differences, both (B, C, H, W)."""
    right = F.pad(image[..., 2:] - image[..., :-2], (1, 1, 0, 0))
    return right, F.pad(image[..., 2:, :] - image[..., :-2, :], (0, 0, 1, 1))


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Return images (B, C, H, W) under a Gaussian of ``sigma`` pixels, mirrored at the frame."""
    reach = min(round(3 * sigma + 0.5), min(image.shape[-2:]) - 1)
    offset = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-(offset**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, -1)
    rows = F.conv2d(F.pad(image, (reach, reach, 0, 0), mode="reflect"), kernel[:, :, None], groups=image.shape[1])
    return F.conv2d(F.pad(rows, (0, 0, reach, reach), mode="reflect"), kernel[..., None], groups=image.shape[1])
