"""A run's synthetic images before a classifier, and the tables of what came of it."""

from pathlib import Path

import torch
from torch import Tensor

from anastyle.data.split import Split
from anastyle.evaluation.tables import UNPAIRED, Column, Ranking, Row, Table, build
from anastyle.evaluation.utility.arms import SYNTHETIC, Synthetic
from anastyle.evaluation.utility.classify import classify
from anastyle.evaluation.utility.metrics import RECALL
from anastyle.evaluation.utility.networks import Recipe
from anastyle.evaluation.utility.results import GAIN, PREFIX
from anastyle.evaluation.utility.segment import segment
from anastyle.evaluation.utility.trainings import UtilitySettings
from anastyle.evaluation.values import Value

TITLES = {
    "weighted_f1": "F1 weighted",
    "macro_f1": "F1 macro",
    "balanced_accuracy": "BACC",
    "auc": "AUC",
    "dice": "Dice of a segmenter",
}
FLOOR = "floor: always the commonest class, or no gain"


def utility_values(
    images: Tensor,
    rows: list[int],
    train: Split,
    test: Split,
    classes: list[str],
    *,
    networks: int,
    steps: int,
    cache: Path,
    device: torch.device,
    masks: Tensor | None = None,
) -> dict[str, Value]:
    """Return what images (n, 3, S, S), asked for by the captions of ``rows`` of the test split, are worth.

    Arguments:
        masks: painted beside them, (n, 1, S, S): then what pairs are worth to a segmenter too.

    Raises:
        DataError: too few test images are left that no image was asked for.
    """
    settings = UtilitySettings(recipe=Recipe(steps=steps), seeds=tuple(range(networks)))
    synthetic = Synthetic(images, test.labels[rows], masks, asked=torch.tensor(rows))
    values = classify(synthetic, train, test, classes, settings=settings, device=device, cache=cache).values()
    if masks is not None:
        values |= segment(synthetic, train, test, settings=settings, device=device, cache=cache).values()
    return values


def utility_tables(rows: list[Row], ranking: Ranking = UNPAIRED) -> list[Table]:
    """Return the downstream table and the recall of each class, arms as lines; nothing where no run was compared.

    Arms without synthetic images are the same for every variant: they are shown once.
    """
    by_arm = [arm for row in rows for arm in arms_of(row, shared=row is rows[0])]
    keys = list(dict.fromkeys(key for row in by_arm for key in row.values))
    recalls = [key for key in keys if RECALL in key and not key.endswith(GAIN)]
    scores = [key for key in keys if RECALL not in key]
    titles = {"Of use to a network": scores, "Recall of each class": recalls}
    beside = Ranking(references={arm.variant for arm in by_arm if arm.variant.split(": ")[0] in ranking.references})
    return [
        build(by_arm, named, floor=FLOOR, title=title, column=column, ranking=beside)
        for title, named in titles.items()
        if named
    ]


def arms_of(row: Row, *, shared: bool) -> list[Row]:
    """Return a run's values as one row an arm; ``shared``: with the arms that hold no synthetic images."""
    arms: dict[str, Row] = {}
    for key, value in row.values.items():
        if key.startswith(PREFIX):
            arm, _, metric = key.removeprefix(PREFIX).partition("/")
            own = SYNTHETIC in arm
            if own or shared:
                name = f"{row.variant}: {arm.replace('_', ' + ')}" if own else arm.replace("_", " + ")
                arms.setdefault(arm, Row(name, row.seed, {})).values[metric] = value
    return list(arms.values())


def column(key: str) -> Column:
    """Return how a metric is shown."""
    if key.startswith(RECALL):
        return Column(key, key.removeprefix(RECALL), False, digits=3)
    gain = key.endswith(GAIN)
    return Column(key, TITLES[key.removesuffix(GAIN)] + (" gained" if gain else ""), False, digits=3, difference=gain)
