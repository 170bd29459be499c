"""What the codes of anatomy and style hold: linear probes across, DCI, and retrieval of an image by its caption.

A code that is free of the other factor cannot be probed for it; a caption that reads as its image does finds it.
"""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anastyle.evaluation.bootstrap import share
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.values import Value
from anastyle.interfaces import Factors

PROBE, DCI, RETRIEVAL = "probe/", "dci/", "retrieval/"
KINDS = Factors._fields
FOLDS = 5
TREES = 40
FEWEST = 50  # images, below which nothing is probed
NEAREST = (1, 10)
Array = NDArray[np.float64]


class Codes(NamedTuple):
    """One kind of code, of images or of their captions."""

    anatomy: Array  # (n, D_a)
    style: Array  # (n, D_s)


def probes(
    codes: Codes, origin: str, factors: Mapping[str, NDArray], kinds: Mapping[str, tuple[str, ...]], settings: Settings
) -> dict[str, Value]:
    """Return ``probe/ORIGIN/CODE/KIND``: how well a linear probe reads factors of KIND off a code.

    Where CODE is not KIND, the best possible outcome is chance, which is the floor.

    Arguments:
        origin: ``visual`` or ``text``.
        factors: factor -> its values (n,).
        kinds: kind of factor -> its factors.
    """
    found = {}
    for code, points in codes._asdict().items():
        for kind in KINDS:
            hits = np.stack([probe(points, factors[name]) for name in kinds[kind]])  # (factors, n)
            chance = [np.bincount(factors[name]).max() / len(points) for name in kinds[kind]]
            protocol = (
                f"Accuracy of a linear probe ({FOLDS}-fold cross-validated logistic regression on the standardised "
                f"{origin} {code} code of {len(points)} held-out images), mean over the {kind} factors; floor: chance; "
                f"interval: 95 %, {settings.draws} bootstrap samples of images"
            )
            found[f"{PROBE}{origin}/{code}/{kind}"] = Value(
                *share(hits.mean(axis=0), settings), floor=float(np.mean(chance)), n=len(points), protocol=protocol
            )
    return found


def probe(points: Array, target: NDArray) -> Array:
    """Return where a linear probe on (n, D) is right about (n,), each point judged by a probe that has not seen it."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of a fit that tells all apart already
        return np.asarray(cross_val_predict(model, points, target, cv=folds) == target, np.float64)


def dci(codes: Codes, origin: str, factors: Mapping[str, NDArray]) -> dict[str, Value]:
    """Return disentanglement, completeness and informativeness (Eastwood and Williams 2018) of both codes together.

    Importances are those of random forests, one for each factor.
    """
    points = np.concatenate(codes, axis=1)
    importance, right = zip(*(_forest(points, target) for target in factors.values()), strict=True)
    weight = np.stack(importance, axis=1)  # (D, F)
    scores = {
        "disentanglement": _sharpness(weight, axis=1),
        "completeness": _sharpness(weight, axis=0),
        "informativeness": float(np.mean(right)),
    }
    data = f"the {origin} codes of {len(points)} held-out images, {len(factors)} factors"
    how = f"random forests of {TREES} trees on {data}"
    words = "Eastwood and Williams 2018"
    return {
        f"{DCI}{origin}/{name}": Value(score, n=len(points), protocol=f"{name.capitalize()} ({words}); {how}")
        for name, score in scores.items()
    }


def _forest(points: Array, target: NDArray) -> tuple[Array, float]:
    """Return how much each number of the code (D,) tells of a factor, and the accuracy on the half not trained on."""
    from sklearn.ensemble import RandomForestClassifier

    half = len(points) // 2
    forest = RandomForestClassifier(TREES, random_state=0, min_samples_leaf=2).fit(points[:half], target[:half])
    return forest.feature_importances_, float(forest.score(points[half:], target[half:]))


def _sharpness(weight: Array, axis: int) -> float:
    """Return 1 - entropy of the importances along an axis, weighted by how important each row of it is."""
    total = weight.sum(axis=axis, keepdims=True)
    share = weight / np.clip(total, 1e-12, None)
    entropy = -(share * np.log(np.clip(share, 1e-12, None))).sum(axis=axis) / np.log(weight.shape[axis])
    return float(np.average(1 - entropy, weights=total.squeeze(axis)))


def retrieval(visual: Codes, text: Codes, when: str, settings: Settings) -> dict[str, Value]:
    """Return ``retrieval/WHEN/CODE@k``: how often an image is among the k nearest to its caption, by cosine.

    Codes are standardised, number by number, on either side. Captions that say the same of different images set a limit
    below 1.
    """
    found = {}
    for kind in KINDS:
        rank = ranks(getattr(text, kind), getattr(visual, kind))
        for k in NEAREST:
            hits = (rank < k).astype(np.float64)
            protocol = (
                f"Share of {len(rank)} held-out captions whose own image is among the {k} nearest by cosine of the "
                f"standardised {kind} codes, {when} alignment; floor: chance; interval: 95 %, "
                f"{settings.draws} bootstrap samples"
            )
            key = f"{RETRIEVAL}{when}/{kind}@{k}"
            found[key] = Value(*share(hits, settings), floor=k / len(rank), n=len(rank), protocol=protocol)
    return found


def ranks(query: Array, points: Array) -> NDArray[np.int64]:
    """Return how many points (n, D) lie nearer to each query (n, D) than its own, (n,); of equals, half."""
    near = _directions(query) @ _directions(points).T
    own = np.diag(near)[:, None]
    return ((near > own).sum(axis=1) + (np.isclose(near, own).sum(axis=1) - 1) // 2).astype(np.int64)


def _directions(points: Array) -> Array:
    spread = points.std(axis=0)
    scaled = (points - points.mean(axis=0)) / np.where(spread > 1e-8, spread, 1)
    return scaled / np.clip(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-8, None)
