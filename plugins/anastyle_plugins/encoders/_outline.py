"""Where a lesion lies and what outline it has, in a few numbers that a caption could know."""

import torch
import torch.nn.functional as F
from torch import Tensor

from anastyle_plugins.encoders._moments import moments
from anastyle_plugins.encoders._surface import mean_colour, slopes

ANGLES, RINGS = 64, 48
REACH = 1.2  # how far from its centre a lesion is looked for, in half image widths
HARMONICS = 8  # of the profile that are kept one by one
FINE = 25  # first harmonic that is left to the image's own resolution
PLACE = 6  # of the moments: area, centroid, extent
GROUPS = (PLACE, HARMONICS + 1, 1, 3)  # place, outline, symmetry, edge
OUTLINE = sum(GROUPS)
FAINT = 0.02  # a harmonic that cannot be seen, as a share of the radius


def outline(image: Tensor, lesion: Tensor) -> Tensor:
    """Return (B, 19) numbers of lesions (B, 1, H, W), 0 or 1, in images (B, 3, H, W) in [-1, 1].

    0 - 5   area, centroid x and y, variance in x and in y, covariance (see ``moments``)
    6 - 13  log magnitudes of the first eight harmonics of the profile, the radius at each angle as a share of its mean
            (Fourier descriptors, Zahn and Roskies 1972): egg-shaped, elongated, three-cornered and so on
    14      log magnitude of the harmonics above, together: a jagged edge
    15      mirror symmetry: the best correlation of the profile with its mirror image, in [-1, 1]
    16, 17  log of the brightness's slope on the outline, relative to that within and to that without: a sharp edge
    18      log of the contrast just across the outline, relative to that farther from it: no pattern blurs it

    Turning the image changes none of 6 to 18. Where there is no lesion, the profile is flat.
    """
    place = moments(lesion)[:, 0, :PLACE]
    profile = radii(lesion, place[:, 1:3])  # (B, ANGLES)
    ratio = profile / profile.mean(dim=1, keepdim=True).clamp(min=1e-3) - 1
    waves = torch.fft.rfft(ratio, norm="forward")
    size = 2 * waves.abs()
    rough = size[:, HARMONICS + 1 : FINE].square().sum(dim=1, keepdim=True).sqrt()
    harmonics = (torch.cat([size[:, 1 : HARMONICS + 1], rough], dim=1) + FAINT).log()
    edge = [sharpness(image, lesion), abruptness(image, lesion)]
    return torch.cat([place, harmonics, mirrored(ratio)[:, None], *edge], dim=1)


def radii(lesion: Tensor, centre: Tensor) -> Tensor:
    """Return how far lesions (B, 1, H, W) reach from a centre (B, 2), x and y, at each angle, (B, ANGLES)."""
    angle = torch.arange(ANGLES, device=lesion.device) / ANGLES * 2 * torch.pi
    ring = (torch.arange(RINGS, device=lesion.device) + 0.5) / RINGS * REACH
    spokes = ring[:, None, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)  # (RINGS, ANGLES, 2)
    grid = centre[:, None, None] + spokes.to(lesion.dtype)
    return REACH * F.grid_sample(lesion, grid, align_corners=False)[:, 0].mean(dim=1)


def mirrored(profile: Tensor) -> Tensor:
    """Return the best correlation of profiles (B, A), of mean 0, with themselves mirrored about any axis, (B,)."""
    waves = torch.fft.rfft(profile)
    best = torch.fft.irfft(waves**2, n=profile.shape[1]).amax(dim=1)
    return (best + 1e-4) / (profile.square().sum(dim=1) + 1e-4)  # a circle is its own mirror


def sharpness(image: Tensor, lesion: Tensor) -> Tensor:
    """Return the log ratios (B, 2) of the mean slope on the outline to that just inside and just outside of it."""
    step = max(1, round(lesion.shape[-1] / 64))
    grey = image.mean(dim=1, keepdim=True)
    right, down = slopes(grey)
    slope = (right**2 + down**2 + 1e-8).sqrt()
    grown, far = (F.max_pool2d(lesion, 2 * k + 1, 1, k) for k in (step, 3 * step))
    shrunk, deep = (1 - F.max_pool2d(1 - lesion, 2 * k + 1, 1, k) for k in (step, 3 * step))
    on, within, without = (
        (slope * band).sum(dim=(1, 2, 3)) / (band.sum(dim=(1, 2, 3)) + 1e-3) + 0.01
        for band in (grown - shrunk, shrunk - deep, far - grown)
    )
    return torch.stack([(on / within).log(), (on / without).log()], dim=1)


def abruptness(image: Tensor, lesion: Tensor) -> Tensor:
    """Return the log ratio (B, 1) of the colour's contrast a pixel of 64 across the outline to that two to four across.

    Means along the whole outline, so that pattern and grain cancel.
    """
    step = max(1, round(lesion.shape[-1] / 64))
    grown, shrunk = ([reached(side, k * step) for k in (0, 1, 2, 4)] for side in (lesion, 1 - lesion))
    near, far = (
        (mean_colour(image, grown[b] - grown[a]) - mean_colour(image, shrunk[b] - shrunk[a])).norm(dim=1, keepdim=True)
        for a, b in ((0, 1), (2, 3))
    )
    return ((near + FAINT) / (far + FAINT)).log()


def reached(region: Tensor, distance: int) -> Tensor:
    """Return a region (B, 1, H, W), 0 or 1, grown by some pixels."""
    return F.max_pool2d(region, 2 * distance + 1, 1, distance) if distance else region
