"""Do painted masks lie on the lesions they belong to? The Dice of each with what a segmenter sees in its image."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from anastyle.evaluation.bootstrap import share
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.utility.metrics import dice
from anastyle.evaluation.values import Value

PAIRS = "pair_dice"
STREAM = 7  # of the bootstrap's draws
FEWEST = 10  # pairs with a lesion in mask or image, below which nothing is said


def pair_values(masks: Tensor, seen: Tensor, ceiling: float | None, name: str, settings: Settings) -> dict[str, Value]:
    """Return ``pair_dice``: the mean Dice of painted masks with what is seen in their images.

    Arguments:
        masks: uint8 (n, 1, S, S), as they were painted.
        seen: bool (n, 1, s, s), what the segmenter sees in the images.
        ceiling: its Dice with the masks of real test images.
        name: of the segmenter, for the protocol.
    """
    drawn = (F.interpolate(masks.float(), size=seen.shape[-2:], mode="area") >= 0.5).flatten(1).numpy()
    told = seen.flatten(1).numpy()
    own = np.flatnonzero(drawn.any(axis=1) | told.any(axis=1))
    if len(own) < FEWEST:
        return {}
    found = dice(drawn[own], told[own])
    with np.errstate(invalid="ignore"):  # of two empty masks there is no Dice
        others = [float(np.nanmean(dice(drawn, np.roll(told, by, axis=0)))) for by in range(1, min(len(told), 11))]
    protocol = (
        f"Dice of painted masks with what {name} sees in the images that were painted with them, at "
        f"{round(drawn.shape[1] ** 0.5)} px, mean over images with a lesion in either; floor: masks of other images; "
        f"ceiling: masks of real test images; interval: 95 %, {settings.draws} bootstrap samples of images"
    )
    estimate = share(found, settings, stream=STREAM)
    per_image = np.full(len(drawn), np.nan)
    per_image[own] = found
    value = Value(
        *estimate, floor=float(np.mean(others)), n=len(own), protocol=protocol, ceiling=ceiling, samples=per_image
    )
    return {PAIRS: value}
