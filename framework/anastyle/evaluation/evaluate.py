"""What a variant's images are worth: distances to real ones, and whether they show what was asked.

No number leaves this file alone. Each comes with its interval, with what it would be for real images (the floor of a
distance, the ceiling of an accuracy), with chance, with the count of images, and with a protocol: the sentence that
somebody else would need to compute it again.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from anastyle.errors import DataError
from anastyle.evaluation.classifier import resized
from anastyle.evaluation.distances import Array, Statistic, clouds, frechet, half_samples, interval, kid, mmd
from anastyle.evaluation.judge import LABEL, Examples, Judge, answers_of, pixels, shown
from anastyle.interfaces import Feature

FACTOR = "factor/"
MEAN = "factor_mean"
FEWEST = 10  # images, below which no distance is worth its name


@dataclass(frozen=True)
class Value:
    """One number and what it takes to read it."""

    value: float
    low: float | None = None  # of the 95 % interval
    high: float | None = None
    floor: float | None = None  # a distance: real against real. An accuracy: chance
    n: int = 0  # generated images
    protocol: str = ""
    ceiling: float | None = None  # an accuracy on real held-out images
    decoded: float | None = None  # the same, after the autoencoder

    def __post_init__(self) -> None:
        if not self.protocol:
            raise ValueError("a value needs a protocol: how it was measured, in one sentence")

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and strings; ``Value(**...)`` reads them back."""
        return asdict(self)


@dataclass(frozen=True)
class Settings:
    """The person's choices of the evaluate stage that concern numbers."""

    reference: Literal["test", "train"] = "test"
    draws: int = 200
    """Resamples behind an interval."""
    seed: int = 0
    max_side: int = 128
    """Features look at images no larger than this."""


@dataclass
class Reference:
    """Real images, in two disjoint parts: what is measured against, and what gives the floor."""

    against: Tensor  # (m, 3, s, s) uint8
    held: Tensor  # (k, 3, s, s) uint8
    side: int
    words: str  # for the protocol
    _features: dict[str, tuple[Array, Array]] = field(default_factory=dict)

    def features(self, network: Feature) -> tuple[Array, Array]:
        """Return the features of both parts, (m, F) and (k, F), computed once a network."""
        key = network.fingerprint()
        if key not in self._features:
            self._features[key] = features_of(network, self.against), features_of(network, self.held)
        return self._features[key]


def reference(train: Examples, test: Examples, n: int, settings: Settings) -> Reference:
    """Choose the real images that ``n`` generated ones are measured against; the same for every variant and seed.

    From the test split, half is kept for the floor (``n`` images where that is less). From the training split, the
    test split gives the floor, which then also holds the gap between the two.

    Raises:
        DataError: too few real images.
    """
    rng = np.random.default_rng([settings.seed, 1])
    order = rng.permutation(len(test)).tolist()
    kept = min(n, len(test) // 2 if settings.reference == "test" else len(test))
    source, rows = (test, order[kept:]) if settings.reference == "test" else (train, list(range(len(train))))
    if min(kept, len(rows)) < FEWEST:
        raise DataError(
            f"the test split has {len(test)} images: a distance needs {2 * FEWEST}, half of them for the floor.\n"
            f"Prepare a larger test share."
        )
    side = min(settings.max_side, source.image(0).shape[-1])
    words = f"{len(rows)} real {settings.reference} images; floor: {kept} other real test images against the same"
    return Reference(pixels(source, side, rows)[0], pixels(test, side, order[:kept])[0], side, words)


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
        features: networks by name; gives ``fd_<name>`` each, and ``kid`` on ``domain``.
        judge: gives ``label_accuracy``, ``factor/<name>`` and ``factor_mean``.
        decoded: uint8 (n, 3, S, S), the real images of ``asked`` after the autoencoder: a second ceiling.
        real: what ``reference`` chose, to keep its features from one variant to the next.

    Raises:
        DataError: images and rows do not match, or there are too few.
    """
    settings = settings or Settings()
    asked = torch.as_tensor(asked, dtype=torch.long)
    check(generated, asked, test)
    values = {}
    if features:
        real = real or reference(train, test, len(generated), settings)
        values |= distance_values(generated, real, features, settings)
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


def distance_values(
    generated: Tensor, real: Reference, features: dict[str, Feature], settings: Settings, *, kernel: str = "domain"
) -> dict[str, Value]:
    """Return the Fréchet distance on each network's features, and the kernel distance on those of ``kernel``."""
    values = {}
    for name, network in features.items():
        fake = features_of(network, generated, real.side)
        against, held = real.features(network)
        how = (
            f"{len(fake)} generated against {real.words}; features {network.fingerprint()}, F={fake.shape[1]}, "
            f"images at {real.side} px (antialiased bicubic); "
            f"interval: 95 %, {settings.draws} half-samples of both sides, centred"
        )
        values[f"fd_{name}"] = frechet_value(fake, against, held, how, settings)
        if name == kernel:
            values["kid"] = kid_value(fake, against, held, how, settings)
    return values


def frechet_value(fake: Array, against: Array, held: Array, how: str, settings: Settings) -> Value:
    """Return the Fréchet distance of features (n, F) from (m, F), with (k, F) for the floor."""
    value = frechet(fake, against)
    low, high = around(value, frechet, fake, against, settings)
    low = None if low is None else max(0.0, low)
    return Value(value, low, high, frechet(held, against), len(fake), f"Fréchet distance (biased by n); {how}")


def kid_value(fake: Array, against: Array, held: Array, how: str, settings: Settings) -> Value:
    """Return the kernel distance of features (n, F) from (m, F), with (k, F) for the floor."""
    value = kid(fake, against, subsets=100, seed=settings.seed).mean
    low, high = around(value, mmd, fake, against, settings)
    floor = kid(held, against, subsets=100, seed=settings.seed).mean
    what = "Kernel distance (unbiased MMD, cubic kernel, mean of 100 subsets of half the smaller side, at most 1000)"
    return Value(value, low, high, floor, len(fake), f"{what}; {how}")


def around(
    value: float, distance: Statistic, fake: Array, against: Array, settings: Settings
) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a distance, or nothing where none was asked for."""
    if not settings.draws:
        return None, None
    return interval(value, half_samples(distance, fake, against, draws=settings.draws, seed=settings.seed))


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
        )
        values["label_accuracy" if name == LABEL else FACTOR + name] = value
        if name != LABEL:
            right[name] = torch.where(known, (answers[name] == target).double(), torch.nan).numpy()
    if right:  # rows where no factor is known do not occur: factors come with the set, or not at all
        values[MEAN] = mean_value(values, np.stack(list(right.values())), how, settings)
    return values


def mean_value(values: dict[str, Value], right: Array, how: str, settings: Settings) -> Value:
    """Return the mean accuracy over factors; ``right`` is (factors, n), NaN where the answer is not known."""
    parts = [value for name, value in values.items() if name.startswith(FACTOR)]
    _, low, high = share(np.nanmean(right, axis=0), settings)
    decoded = [part.decoded for part in parts if part.decoded is not None]
    return Value(
        float(np.mean([part.value for part in parts])),
        low,
        high,
        floor=float(np.mean([part.floor or 0.0 for part in parts])),
        n=right.shape[1],
        protocol=f"Mean accuracy over {len(parts)} factors: {how}",
        ceiling=float(np.mean([part.ceiling or 0.0 for part in parts])),
        decoded=float(np.mean(decoded)) if decoded else None,
    )


def share(hits: Array, settings: Settings) -> tuple[float, float | None, float | None]:
    """Return the mean of hits (n,) and its 95 % bootstrap interval over images."""
    if not settings.draws:
        return float(hits.mean()), None, None
    rng = np.random.default_rng([settings.seed, 2])
    draws = hits[rng.integers(len(hits), size=(settings.draws, len(hits)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(hits.mean()), float(low), float(high)


@torch.no_grad()
def features_of(network: Feature, images: Tensor, side: int | None = None) -> Array:
    """Return features (n, F) in float64 of uint8 images (n, 3, H, W), brought to ``side`` pixels first."""
    network.eval()
    device = next((tensor.device for tensor in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    parts = [network(resized(image, side or image.shape[-1]).to(device)).double().cpu() for image in shown(images)]
    found = torch.cat(parts).numpy()
    return clouds(found, found)[0]
