"""The leakage matrix: one text is swapped, the noise stays, and a judge says which factors changed in the image.

Rows are the text that was swapped, columns the kind of factor that is looked at. On the diagonal stands control (the
factors that the text speaks of should change), beside it leakage (the others should not). Another noise under the same
words changes answers too: that is the floor of every cell. A cell is worth something only against it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anastyle.evaluation.bootstrap import mean, share
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.values import Value
from anastyle.interfaces import Factors

SWAP = "swap/"
KINDS = Factors._fields
Hits = NDArray[np.float64]  # (factors, pairs): 1 where an answer changed, NaN where the cell does not ask


class Asked(NamedTuple):
    """What the two captions of each pair ask for: factor -> answers (M,)."""

    first: Mapping[str, Tensor]
    second: Mapping[str, Tensor]


def leakage(
    answers: Mapping[str, Mapping[str, Tensor]],
    asked: Asked,
    kinds: Mapping[str, tuple[str, ...]],
    judge: str,
    settings: Settings,
) -> dict[str, Value]:
    """Return ``swap/TEXT/KIND``: the share of answers that changed when TEXT was swapped, of factors of KIND.

    Where TEXT speaks of KIND, only factors count in which the two captions differ.

    Arguments:
        answers: ``same``, ``anatomy`` and ``style`` (what was exchanged), ``noise`` (other noise, same words) -> factor
            -> the judge's answers (M,).
        kinds: kind of factor -> its factors.
        judge: its fingerprint, for the protocol.
    """
    found = {}
    for text in KINDS:
        for kind in KINDS:
            own = text == kind
            counted = [name for name in kinds[kind] if name in answers["same"]]
            changed, moved = (
                np.stack([_changes(answers[field], answers["same"], asked, name, own=own) for name in counted])
                for field in (text, "noise")
            )
            found[f"{SWAP}{text}/{kind}"] = _value(
                changed, moved, _protocol(text, kind, judge, settings.draws), settings
            )
    return found


def _changes(
    answers: Mapping[str, Tensor], before: Mapping[str, Tensor], asked: Asked, name: str, *, own: bool
) -> NDArray[np.float64]:
    """Return where a factor's answer changed, (M,); NaN where it was not asked to and should have been."""
    changed = (answers[name] != before[name]).double().numpy()
    differ = (asked.first[name] != asked.second[name]).numpy()
    return np.where(differ, changed, np.nan) if own else changed


def _value(changed: Hits, moved: Hits, protocol: str, settings: Settings) -> Value:
    """Return the mean over factors with its 95 % interval over pairs, and the floor."""
    return Value(*share(changed, settings, stream=3), floor=mean(moved), n=changed.shape[1], protocol=protocol)


def _protocol(text: str, kind: str, judge: str, draws: int) -> str:
    which = "in which the two captions differ" if text == kind else "which the swap does not speak of"
    return (
        f"Share of {judge}'s answers that changed when a caption's {text} was exchanged for another's and noise and "
        f"all else stayed; mean over the {kind} factors {which}; floor: other noise, same words; interval: 95 %, "
        f"{draws} bootstrap samples of pairs"
    )
