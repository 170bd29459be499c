"""Are synthetic images and their masks of use to a segmenter? Arms as in ``classify``, pairs, and a small U-Net."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anastyle.errors import DataError
from anastyle.evaluation.distances import Array
from anastyle.evaluation.judge import Examples
from anastyle.evaluation.utility.arms import FEWEST, MAJORITY, Arm, Pool, Synthetic, arms, gather
from anastyle.evaluation.utility.metrics import dice
from anastyle.evaluation.utility.networks import UNet
from anastyle.evaluation.utility.results import Predicted, Utility, compare
from anastyle.evaluation.utility.trainings import Task, Trainings, UtilitySettings

DICE = {"dice": "Dice at a threshold of one half, mean over test images that have a mask with something in it"}


def segment(
    synthetic: Synthetic,
    train: Examples,
    test: Examples,
    *,
    settings: UtilitySettings | None = None,
    device: str | torch.device = "cpu",
    cache: Path | None = None,
) -> Utility:
    """Return what synthetic images and their masks are worth to a segmenter; nothing, with a reason, without masks.

    Raises:
        DataError: the synthetic images and the splits do not belong together, or are too few.
    """
    settings = settings or UtilitySettings()
    if synthetic.masks is None:
        return Utility(reason="the system paints no masks")
    pools = gather(synthetic, train, test, settings.max_side, masks=True)
    outlines = pools.real.masks
    if outlines is None or pools.test.masks is None:
        return Utility(reason="some real images have no mask")
    rows = outlined(pools.test.masks)
    truth = pools.test.masks[rows].numpy()
    pools = pools._replace(test=pools.test.take(rows), groups=[pools.groups[row] for row in rows.tolist()])
    trainings = Trainings(task(settings), pools, settings, device, cache)
    chosen = arms(settings.ratios, alone=False)
    always = (outlines.float().mean(dim=0) > 0.5).expand(len(truth), -1, -1, -1).numpy()
    predicted = {MAJORITY: [always], **trainings.predictions(chosen)}

    def measure(said: Predicted, weights: Array) -> dict[str, Array]:
        return {"dice": weights @ dice(said, truth) / weights.sum(axis=1)}

    lowest = Arm(MAJORITY, control=chosen[0].control)
    results = compare([lowest, *chosen], predicted, measure, trainings.resamples(), pools.units, {})
    how = f"{trainings.how()}; floor: at every pixel what most training masks say"
    return Utility(results, DICE, how, len(truth))


def outlined(masks: Tensor) -> Tensor:
    """Return the rows of masks (n, 1, s, s) that have something in them.

    Raises:
        DataError: they are too few.
    """
    rows = torch.nonzero(masks.flatten(1).any(dim=1)).flatten()
    if len(rows) < FEWEST:
        raise DataError(f"{len(rows)} test images have a mask with something in it; {FEWEST} is the least for a Dice.")
    return rows


def task(settings: UtilitySettings) -> Task:
    """Return what a segmenter learns: cross-entropy and a soft Dice."""
    width = settings.recipe.width

    def loss(network: nn.Module, image: Tensor, batch: Pool) -> Tensor:
        assert batch.masks is not None
        logits, masks = network(image), batch.masks
        inside = logits.sigmoid()
        shared, total = (part.sum(dim=(1, 2, 3)) for part in (inside * masks, inside + masks))
        return F.binary_cross_entropy_with_logits(logits, masks) + (1 - (2 * shared + 1) / (total + 1)).mean()

    return Task(
        f"a U-Net of width {width}, cross-entropy and soft Dice",
        lambda: UNet(width=width),
        loss,
        lambda logits: (logits > 0).to(torch.uint8),
    )
