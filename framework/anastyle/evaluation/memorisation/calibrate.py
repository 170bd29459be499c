"""What real held-out images keep from the training set, and so what a new image keeps.

A distance alone says little: an even image is near to many. What gives a copy away is one training image far nearer
than the next ones, so the distance is taken over its mean to the 50 nearest training images (Carlini et al. 2023,
Extracting Training Data from Diffusion Models). That ratio does not hang on how densely the set lies where
the image is, and a generator that keeps to the commonest images is not taken for one that copies.

How small a ratio may be by chance is read off held-out images, which no training has seen: the threshold is the k-th
smallest of n, k = 1 % of n + 1, below which a new image of the same distribution falls with probability k / (n + 1)
whatever that distribution is (a conformal p-value: Vovk et al. 2005).

Held-out images that show a training image again would teach that copies are common, and hide them. They are left out:
those of a group that is also trained on, those that the audit of near-duplicates finds, and those far out by Tukey's
rule, such as a lesion photographed twice.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from anastyle.data.audit import Audit
from anastyle.data.images import picture_of
from anastyle.evaluation.memorisation.search import Nearest, Pictures

LEVEL = 0.01  # of new images that are taken for copies, in each space
FEWEST_HELD = 99  # held-out images; with fewer, no threshold has that level
FAR = 3.0  # interquartile ranges below the lower quartile (Tukey 1977)
Z = 1.959964  # of a 95 % interval


class Share(NamedTuple):
    """A share of images, and its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(hits: int, n: int) -> Share:
    """Return the share of hits among n, and Wilson's score interval (1927), which holds for rare hits too."""
    share, z2 = hits / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Share(share, max(0.0, middle - half), min(1.0, middle + half))


def threshold(ratios: Tensor) -> float:
    """Return the ratio that LEVEL of new images fall to, from those of held-out images (n,), n >= FEWEST_HELD."""
    return float(ratios.sort().values[int(LEVEL * (len(ratios) + 1)) - 1])


def leaks(near: Nearest, train: Pictures, held: Pictures) -> Tensor:
    """Say which held-out images show a training image again, (n,) bool; ``near`` is in pixel space."""
    trained = {group for group in train.groups if group}
    leaked = torch.tensor([group in trained for group in held.groups])
    for row in (~leaked).nonzero()[:, 0].tolist():
        pair = held.pixels(torch.tensor([row]))[0], train.pixels(near.index[row : row + 1])[0]
        leaked[row] = same_picture(*pair)
    return leaked | far_out(near.ratio, leaked)


def far_out(ratios: Tensor, without: Tensor) -> Tensor:
    """Say which ratios (n,) lie far below all but those ``without``, (n,) bool."""
    if without.all():
        return without
    logs = ratios.log()
    lower, upper = logs[~without].quantile(torch.tensor([0.25, 0.75]))
    return logs < lower - FAR * (upper - lower)


def same_picture(one: Tensor, other: Tensor) -> bool:
    """Say whether the audit takes two uint8 images (3, H, W), or one and the other's mirror image, for one picture."""
    audit = Audit()
    for key, image in (("one", one), ("other", other), ("mirrored", other.flip(-1))):
        audit.add(key, picture_of(image))
    return any("one" in (twin.first, twin.second) for twin in audit.twins())
