"""What a network's answers are worth: F1, balanced accuracy, AUC and recalls, of many weighted test sets at once; Dice.

The definitions are scikit-learn's, and tests hold them to it. A bootstrap asks for thousands of weighted test sets,
which scikit-learn scores one by one, at 60 ms each; here they are rows of one matrix.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anastyle.evaluation.distances import Array

RECALL = "recall/"
OVER_CLASSES = ("macro_f1", "balanced_accuracy", "auc")  # plain means over all classes
WORDS = {
    "weighted_f1": "F1, mean over classes by their share of the test images",
    "macro_f1": "F1, plain mean over classes",
    "balanced_accuracy": "Recall, plain mean over classes",
    "auc": "Area under the ROC curve of each class against the rest, plain mean over classes",
}


def scores(truth: NDArray[np.int64], probability: Array, weights: Array, classes: Sequence[str]) -> dict[str, Array]:
    """Return every metric, (R,), of R weightings of one test set; NaN where it is undefined.

    Arguments:
        truth: class of each image, (n,), a position in ``classes``.
        probability: of each class, (n, K).
        weights: how often each image counts, (R, n).
    """
    cells = confusion(truth, probability.argmax(axis=1), weights, len(classes))
    hits, asked, said = np.diagonal(cells, axis1=1, axis2=2), cells.sum(axis=2), cells.sum(axis=1)  # (R, K)
    known = np.where(asked > 0, 1.0, np.nan)
    recall = hits / (asked * known)
    f1 = 2 * hits / ((asked + said) * known)
    areas = [auc(truth == k, probability[:, k], weights) for k in range(len(classes))]
    found = {
        "weighted_f1": np.nansum(f1 * asked, axis=1) / asked.sum(axis=1),
        "macro_f1": f1.mean(axis=1),
        "balanced_accuracy": recall.mean(axis=1),
        "auc": np.mean(areas, axis=0),
    }
    return found | {RECALL + name: recall[:, k] for k, name in enumerate(classes)}


def confusion(truth: NDArray[np.int64], answer: NDArray[np.int64], weights: Array, classes: int) -> Array:
    """Return the weight of each pair of true class and answer, (R, K, K)."""
    pairs = np.eye(classes * classes)[truth * classes + answer]  # (n, K * K)
    return (weights @ pairs).reshape(-1, classes, classes)


def auc(positive: NDArray[np.bool_], score: Array, weights: Array) -> Array:
    """Return how often a positive scores above a negative, (R,); equal scores count half. NaN where a side is empty."""
    order = np.argsort(score, kind="stable")
    levels = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # where each distinct score begins
    above, below = (np.add.reduceat(weights[:, order] * side[order], levels, axis=1) for side in (positive, ~positive))
    wins = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    pairs = above.sum(axis=1) * below.sum(axis=1)
    return wins / np.where(pairs > 0, pairs, np.nan)


def always(train: ArrayLike, count: int) -> Array:
    """Return the answer that needs no image, (count, K): the commonest class of training counts (K,)."""
    train = np.asarray(train)
    return np.tile(np.eye(len(train))[train.argmax()], (count, 1))


def majority(train: Mapping[str, int], test: Mapping[str, int]) -> dict[str, float]:
    """Return every metric of always answering the commonest training class, from the counts of classes alone."""
    classes, counts = list(train), np.asarray([test[name] for name in train], np.float64)
    found = scores(np.arange(len(counts)), always(list(train.values()), len(counts)), counts[None], classes)
    return {metric: float(value[0]) for metric, value in found.items()}


def undefined(counts: ArrayLike, classes: Sequence[str]) -> dict[str, str]:
    """Return why metrics of a test set with these counts of classes (K,) are undefined; the others are defined."""
    counts = np.asarray(counts)
    absent = {
        name: f"no test image of class '{name}'" for name, count in zip(classes, counts, strict=True) if not count
    }
    if len(classes) - len(absent) < 2:
        reason = "the test images are of one class" if len(classes) > 1 else "the set has one class"
        return dict.fromkeys([*WORDS, *(RECALL + name for name in classes)], reason)
    reasons = {RECALL + name: reason for name, reason in absent.items()}
    return reasons | dict.fromkeys(OVER_CLASSES, "; ".join(absent.values())) if absent else reasons


def dice(said: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Return the Dice of each of n masks (n, 1, s, s) in {0, 1}; of two empty ones it is undefined."""
    one, other = (masks.reshape(len(masks), -1).astype(np.float64) for masks in (said, truth))
    return 2 * (one * other).sum(axis=1) / (one + other).sum(axis=1)
