"""Are synthetic images of use to a classifier? Trained with them, without them, and with repeats in their place."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anastyle.evaluation.distances import Array
from anastyle.evaluation.judge import Examples
from anastyle.evaluation.utility.arms import MAJORITY, Arm, Pool, Synthetic, arms, gather
from anastyle.evaluation.utility.metrics import RECALL, WORDS, always, scores, undefined
from anastyle.evaluation.utility.networks import ConvNet
from anastyle.evaluation.utility.results import Utility, compare
from anastyle.evaluation.utility.trainings import Task, Trainings, UtilitySettings


def classify(
    synthetic: Synthetic,
    train: Examples,
    test: Examples,
    classes: Sequence[str],
    *,
    settings: UtilitySettings | None = None,
    device: str | torch.device = "cpu",
    cache: Path | None = None,
) -> Utility:
    """Return what synthetic images are worth to a classifier of their labels, beside its controls.

    Arguments:
        classes: names; a label is a position in them.
        cache: a folder that keeps predictions, so that the systems of a study share the trainings on real images.

    Raises:
        DataError: the synthetic images, their labels and the splits do not belong together, or are too few.
    """
    settings = settings or UtilitySettings()
    pools = gather(synthetic, train, test, settings.max_side, masks=False)
    truth = pools.test.labels.numpy()
    reasons = undefined(np.bincount(truth, minlength=len(classes)), classes)
    if set(WORDS) <= set(reasons):
        return Utility(reason=reasons["weighted_f1"])
    trainings = Trainings(task(len(classes), pools.real, settings), pools, settings, device, cache)
    chosen = arms(settings.ratios)
    counts = torch.bincount(pools.real.labels, minlength=len(classes)).numpy()
    predicted = {MAJORITY: [always(counts, len(truth))], **trainings.predictions(chosen)}

    def measure(probability: Array, weights: Array) -> dict[str, Array]:
        return scores(truth, probability, weights, classes)

    lowest = Arm(MAJORITY, control=chosen[0].control)
    results = compare([lowest, *chosen], predicted, measure, trainings.resamples(), pools.units, reasons)
    how = f"{trainings.how()}; floor: always the commonest training class"
    return Utility(results, WORDS | {RECALL + name: recalled(name) for name in classes}, how, len(truth))


def recalled(name: str) -> str:
    """Return what a class's recall is."""
    return f"Share of the test images of class '{name}' that are recognised"


def task(classes: int, real: Pool, settings: UtilitySettings) -> Task:
    """Return what a classifier learns: plain cross-entropy, no weights on classes."""
    side, width, smoothing = real.images.shape[-1], settings.recipe.width, settings.recipe.smoothing

    def loss(network: nn.Module, image: Tensor, batch: Pool) -> Tensor:
        return F.cross_entropy(network(image), batch.labels, label_smoothing=smoothing)

    return Task(
        f"a ConvNet of width {width} for {classes} classes, plain cross-entropy, labels smoothed by {smoothing:g}",
        lambda: ConvNet(classes, width=width, side=side),
        loss,
        lambda logits: logits.double().softmax(dim=1),
    )
