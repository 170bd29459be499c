"""What a variant's images are worth: distances to real ones, and whether they show what was asked.

No number leaves this file alone. Each comes with its interval, with what it would be for real images (the floor of a
distance, the ceiling of an accuracy), with chance, with the count of images, and with a protocol: the sentence that
somebody else would need to compute it again.
"""

import numpy as np
import torch
from torch import Tensor

from anastyle.errors import DataError
from anastyle.evaluation.bootstrap import share
from anastyle.evaluation.distances import Array
from anastyle.evaluation.judge import LABEL, Examples, Judge, answers_of, pixels
from anastyle.evaluation.measures import FRECHET, KERNEL, distance_values
from anastyle.evaluation.reference import FEWEST, Reference, Settings, reference
from anastyle.evaluation.values import Value
from anastyle.interfaces import Feature

FACTOR = "factor/"
MEAN = "factor_mean"
CORRECTED, MEAN_CORRECTED = "corrected/", "factor_mean_corrected"
BRIEF = {"highfreq": [FRECHET], "random_conv": [FRECHET, KERNEL]}  # untrained features: a study shows the distances
LEAST = 0.01  # between chance and ceiling, below which an accuracy is not brought to that scale


def evaluate_images(
    generated: Tensor,
    asked: Tensor | list[int],
    train: Examples,
    test: Examples,
    *,
    features: dict[str, Feature],
    judge: Judge | None = None,
    decoded: Tensor | None = None,
    real: Reference | None = None,
    settings: Settings | None = None,
) -> dict[str, Value]:
    """Measure generated images.

    Arguments:
        generated: uint8 (n, 3, S, S).
        asked: rows of ``test`` whose captions the images were asked for, (n,).
        features: networks by name; ``anastyle.evaluation.measures`` says what each gives.
        judge: gives ``label_accuracy``, ``factor/<name>`` and ``factor_mean``.
        decoded: uint8 (n, 3, S, S), the real images of ``asked`` after the autoencoder: a second ceiling of accuracies,
            and of distances the bound that no generator behind that autoencoder can be expected to pass.
        real: what ``reference`` chose, to keep its features from one variant to the next.

    Raises:
        DataError: images and rows do not match, or there are too few.
    """
    settings = settings or Settings()
    asked = torch.as_tensor(asked, dtype=torch.long)
    check(generated, asked, test)
    values = {}
    if features:
        real = real or reference(train, test, asked.tolist(), settings)
        values |= distance_values(generated, real, features, settings, chosen=BRIEF, decoded=decoded)
    if judge is not None:
        values |= judged_values(generated, asked, test, judge, decoded, settings)
    return values


def check(generated: Tensor, asked: Tensor, test: Examples) -> None:
    """Raise ``DataError`` when images and the rows they were asked from cannot belong together."""
    if generated.dtype != torch.uint8 or generated.ndim != 4 or generated.shape[1] != 3:
        found = f"{generated.dtype} {tuple(generated.shape)}"
        raise DataError(f"generated images must be uint8 (n, 3, S, S); they are {found}")
    count = len(generated)
    if count != len(asked):
        raise DataError(f"there are {count} generated images and {len(asked)} captions they were asked for")
    if count < FEWEST:
        raise DataError(f"there are {count} generated images; {FEWEST} is the least. Raise stages.generate.images.")
    low, high = int(asked.min()), int(asked.max())
    if low < 0 or high >= len(test):
        raise DataError(f"images were asked from rows {low} to {high} of a test split of {len(test)}")


def judged_values(
    generated: Tensor, asked: Tensor, test: Examples, judge: Judge, decoded: Tensor | None, settings: Settings
) -> dict[str, Value]:
    """Return how often the judge sees what was asked, by label and by factor, with chance and ceilings."""
    side = judge.model.side
    real = pixels(test, side, asked.tolist())[0]
    answers, ceiling = judge.answers(generated), judge.answers(real)
    lossy = judge.answers(decoded) if decoded is not None else None
    how = (
        f"share of {len(generated)} generated images in which {judge.fingerprint()}, a classifier trained on real "
        f"training images at {side} px, sees what the caption said; floor: always the commonest answer; ceiling: the "
        f"real test images of the same captions; interval: 95 %, {settings.draws} bootstrap samples of images"
    )
    values, right = {}, {}
    for name, target in answers_of(test).items():
        target = target[asked]
        known = target >= 0
        if name not in answers or not known.any():
            continue
        hits = (answers[name] == target)[known].double().numpy()
        value = Value(
            *share(hits, settings),
            floor=float(torch.bincount(target[known]).max() / known.sum()),
            n=int(known.sum()),
            protocol=f"Accuracy: {how}",
            ceiling=float((ceiling[name] == target)[known].double().mean()),
            decoded=None if lossy is None else float((lossy[name] == target)[known].double().mean()),
            samples=torch.where(known, (answers[name] == target).double(), torch.nan).numpy(),
        )
        values["label_accuracy" if name == LABEL else FACTOR + name] = value
        if name != LABEL:
            right[name] = value.samples
    if right:  # rows where no factor is known do not occur: factors come with the set, or not at all
        parts = [values[FACTOR + name] for name in right]
        how = f"Mean accuracy over {len(parts)} factors: {how}"
        values[MEAN] = mean_value(parts, np.stack(list(right.values())), how, settings)
    return values | corrected_values(values)


def corrected_values(values: dict[str, Value]) -> dict[str, Value]:
    """Return ``factor_mean_corrected`` and ``corrected/<factor>``: where between chance and ceiling accuracies lie."""
    keys = {key: CORRECTED + key.removeprefix(FACTOR) for key in values if key.startswith(FACTOR)}
    found = {new: corrected(values[key]) for key, new in {MEAN: MEAN_CORRECTED, **keys}.items() if key in values}
    return {key: value for key, value in found.items() if value is not None}


def corrected(value: Value) -> Value | None:
    """Return (accuracy - chance) / (ceiling - chance), or None where a ceiling is hardly above chance.

    The ceiling is that of real images after the autoencoder where it is known, else of real images. Of a mean over
    factors, the means are taken first: a factor counts by how much of it can be seen.
    """
    chance, behind = value.floor or 0.0, value.decoded is not None
    ceiling = value.decoded if value.decoded is not None else value.ceiling
    if ceiling is None or ceiling - chance < LEAST:
        return None

    def scaled(number: float | None) -> float | None:
        return None if number is None else (number - chance) / (ceiling - chance)

    which = "real images after the autoencoder" if behind else "real images"
    how = f"Chance-corrected, 0 at the floor of the raw accuracy, {chance:.3f}, 1 at that of {which}, {ceiling:.3f}"
    return Value(
        (value.value - chance) / (ceiling - chance),
        scaled(value.low),
        scaled(value.high),
        floor=0.0,
        n=value.n,
        protocol=f"{how}; {value.protocol}",
        ceiling=scaled(value.ceiling),
        decoded=scaled(value.decoded),
        samples=None if value.samples is None else (value.samples - chance) / (ceiling - chance),
    )


def mean_value(parts: list[Value], right: Array, protocol: str, settings: Settings) -> Value:
    """Return the mean of shares; ``right`` (parts, n) is what they are shares of, NaN where nothing is known."""
    decoded = [part.decoded for part in parts if part.decoded is not None]
    return Value(
        *share(right, settings),
        floor=float(np.mean([part.floor or 0.0 for part in parts])),
        n=right.shape[1],
        protocol=protocol,
        ceiling=float(np.mean([part.ceiling or 0.0 for part in parts])),
        decoded=float(np.mean(decoded)) if decoded else None,
        samples=right,
    )
