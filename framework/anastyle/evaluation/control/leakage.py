"""The leakage matrix: one text is swapped, the noise stays, and a judge says which factors changed in the image.

Rows are the text that was swapped, columns the kind of factor that is looked at. On the diagonal stands control (the
factors that the text speaks of should change), beside it leakage (the others should not). Another noise under the same
words changes answers too: that is the floor of every cell, and each system has its own. A cell is worth something only
against it. That an answer changed does not say that it changed to what was asked: ``arrived`` does.
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
EXCESS, ARRIVED, NOISE = "excess", "arrived", "noise"  # last, last and middle words of further keys
LEAKAGE = "leakage_excess"
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
    """Return the leakage matrix, how far its cells lie above their own floors, and what arrived as it was asked.

    - ``swap/TEXT/KIND``: the share of answers that changed when TEXT was swapped, of factors of KIND. Where TEXT speaks
      of KIND, only factors count in which the two captions differ.
    - ``swap/TEXT/KIND/excess``, where TEXT does not speak of KIND: that share less the system's own floor, by pairs.
    - ``leakage_excess``: the same over all factors that the exchanged text does not speak of.
    - ``swap/TEXT/arrived``: of the factors in which the captions differ, the share that now show what TEXT asks for.
    - ``swap/noise/KIND``: a system's own floor, the share of answers that other noise changes.

    Arguments:
        answers: ``same``, ``anatomy`` and ``style`` (what was exchanged), ``noise`` (other noise, same words) -> factor
            -> the judge's answers (M,).
        kinds: kind of factor -> its factors.
        judge: its fingerprint, for the protocol.
    """
    names = {kind: [name for name in kinds[kind] if name in answers["same"]] for kind in KINDS}
    found, beside = {}, []
    for text in KINDS:
        for kind in KINDS:
            own = text == kind
            changed, moved = (
                np.stack([_changes(answers[field], answers["same"], asked, name, own=own) for name in names[kind]])
                for field in (text, NOISE)
            )
            key, protocol = f"{SWAP}{text}/{kind}", _protocol(text, kind, judge, settings.draws)
            found[key] = _value(changed, protocol, settings, floor=mean(moved))
            if not own:
                beside.append(changed - moved)
                found[f"{key}/{EXCESS}"] = _value(beside[-1], f"{LESS}{protocol}", settings, floor=0.0)
        found[f"{SWAP}{text}/{ARRIVED}"] = arrived(answers, asked, names[text], text, judge, settings)
    for kind in KINDS:
        moved = [_changes(answers[NOISE], answers["same"], asked, name, own=False) for name in names[kind]]
        found[f"{SWAP}{NOISE}/{kind}"] = _value(np.stack(moved), _own_floor(kind, judge, settings.draws), settings)
    about = (
        f"Share of {judge}'s answers that changed when one of a caption's texts was exchanged, of factors that it does "
        "not speak of, less the share that other noise under the same words changes, by pairs; mean over all factors; "
        f"interval: 95 %, {settings.draws} bootstrap samples of pairs"
    )
    found[LEAKAGE] = _value(np.concatenate(beside), about, settings, floor=0.0)
    return found


def arrived(
    answers: Mapping[str, Mapping[str, Tensor]],
    asked: Asked,
    names: list[str],
    text: str,
    judge: str,
    settings: Settings,
) -> Value:
    """Return the share of factors, of those that an exchanged text asks to change, that show what it asks for."""
    differ = {name: asked.first[name] != asked.second[name] for name in names}
    hits, moved = (
        np.stack([_where(answers[field][name] == asked.second[name], differ[name]) for name in names])
        for field in (text, NOISE)
    )
    protocol = (
        f"Share of {judge}'s answers that are what the other caption asks for, after its {text} was put in place of "
        f"the first caption's; mean over the {text} factors in which the two differ; floor: other noise, the first "
        f"caption's own words; interval: 95 %, {settings.draws} bootstrap samples of pairs"
    )
    return _value(hits, protocol, settings, floor=mean(moved))


def _where(hits: Tensor, known: Tensor) -> NDArray[np.float64]:
    """Return hits (M,) as numbers, NaN where the cell does not ask."""
    return np.where(known.numpy(), hits.double().numpy(), np.nan)


def _changes(
    answers: Mapping[str, Tensor], before: Mapping[str, Tensor], asked: Asked, name: str, *, own: bool
) -> NDArray[np.float64]:
    """Return where a factor's answer changed, (M,); NaN where it was not asked to and should have been."""
    differ = asked.first[name] != asked.second[name]
    return _where(answers[name] != before[name], differ | (not own))


def _value(hits: Hits, protocol: str, settings: Settings, *, floor: float | None = None) -> Value:
    """Return the mean over factors with its 95 % interval over pairs."""
    estimate = share(hits, settings, stream=3)
    return Value(*estimate, floor=floor, n=hits.shape[1], protocol=protocol, samples=hits)


LESS = "Less what other noise under the same words changes, by pairs. "


def _protocol(text: str, kind: str, judge: str, draws: int) -> str:
    which = "in which the two captions differ" if text == kind else "which the swap does not speak of"
    return (
        f"Share of {judge}'s answers that changed when a caption's {text} was exchanged for another's and noise and "
        f"all else stayed; mean over the {kind} factors {which}; floor: other noise, same words; interval: 95 %, "
        f"{draws} bootstrap samples of pairs"
    )


def _own_floor(kind: str, judge: str, draws: int) -> str:
    return (
        f"A system's own floor: share of {judge}'s answers that changed when the noise was exchanged and the words "
        f"stayed; mean over the {kind} factors; interval: 95 %, {draws} bootstrap samples of pairs"
    )
