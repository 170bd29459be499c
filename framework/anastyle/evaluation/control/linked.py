"""Captions that break a link of the training images: is the style painted that they ask for, or the usual one?

In a linked world a style factor follows an anatomy factor in most training images, and in test captions it does not. A
model that keeps the two apart paints the style asked for; one that mixes them paints what anatomy would have it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anastyle.evaluation.bootstrap import mean, share
from anastyle.evaluation.distances import Array
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.values import Value

LINKED = "linked/"
KEPT, AS_LINKED = "kept", "as_linked"
STREAM = 8  # of the bootstrap's draws
FEWEST = 10  # captions that break a link, below which nothing is said of it


class Told(NamedTuple):
    """The judge's answers, factor -> (n,), on the images of the same captions."""

    generated: Mapping[str, Tensor]
    real: Mapping[str, Tensor]
    decoded: Mapping[str, Tensor] | None = None  # real ones after the autoencoder


class Broken(NamedTuple):
    """A style factor in captions: what is asked, what the link would have, and where the two differ. (n,) each."""

    asked: Tensor
    usual: Tensor
    differ: Tensor  # bool


def linked_values(
    told: Told,
    asked: Mapping[str, Tensor],
    links: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, list[str]],
    judge: str,
    settings: Settings,
) -> dict[str, Value]:
    """Return ``linked/<style factor>/kept`` and ``/as_linked``, over captions that break its link, and their means.

    ``kept``: the share painted as the caption asks. ``as_linked``: the share painted as the link would have it; its
    floor is how often the judge sees that in the real images of the same captions, which do not show it.

    Arguments:
        asked: factor -> what captions ask for (n,), -1 where unknown.
        links: style factor -> ``follows``, an anatomy factor, and ``values``, anatomy value -> style value.
        values: factor -> the names of its values.
        judge: its fingerprint, for the protocol.
    """
    broken = {name: breaks(asked, name, link, values) for name, link in links.items() if name in told.generated}
    broken = {name: some for name, some in broken.items() if int(some.differ.sum()) >= FEWEST}
    found: dict[str, Value] = {}
    for what in (KEPT, AS_LINKED) if broken else ():
        parts = {name: _value(told, name, some, what, judge, settings) for name, some in broken.items()}
        found[LINKED + what] = _mean(list(parts.values()), what, settings)
        found |= {f"{LINKED}{name}/{what}": value for name, value in parts.items()}
    return found


def breaks(asked: Mapping[str, Tensor], name: str, link: Mapping[str, Any], values: Mapping[str, list[str]]) -> Broken:
    """Return where captions ask for another value of a style factor than its anatomy factor would bring."""
    follows = str(link["follows"])
    usual = torch.tensor([values[name].index(link["values"][value]) for value in values[follows]])
    known = (asked[name] >= 0) & (asked[follows] >= 0)
    brought = usual[asked[follows].clamp(min=0)]
    return Broken(asked[name], brought, known & (asked[name] != brought))


def _value(told: Told, name: str, broken: Broken, what: str, judge: str, settings: Settings) -> Value:
    """Return one share with its interval over captions."""
    target = broken.asked if what == KEPT else broken.usual
    known = broken.differ

    def hits(answers: Mapping[str, Tensor]) -> Array:
        return np.where(known.numpy(), (answers[name] == target).double().numpy(), np.nan)

    def on(answers: Mapping[str, Tensor] | None) -> float | None:
        return None if answers is None else mean(hits(answers)[None])

    samples, count = hits(told.generated), int(known.sum())
    if what == KEPT:
        words = "what the caption asks for; floor: always the commonest answer; ceiling: real images of these captions"
        floor, ceiling = float(torch.bincount(target[known]).max() / count), on(told.real)
    else:
        words = "what the link would have; floor: the judge on real images of these captions, which do not show it"
        floor, ceiling = on(told.real), None
    protocol = (
        f"Share of images in which {judge} sees, in {name}, {words}; over {count} captions in which {name} is not what "
        f"the link of the training images would have; interval: 95 %, {settings.draws} bootstrap samples of captions"
    )
    return Value(
        *share(samples, settings, stream=STREAM),
        floor=floor,
        n=count,
        protocol=protocol,
        ceiling=ceiling,
        decoded=on(told.decoded),
        samples=samples,
    )


def _mean(parts: list[Value], what: str, settings: Settings) -> Value:
    """Return the mean over linked factors."""
    samples = np.stack([part.samples for part in parts if part.samples is not None])

    def over(name: str) -> float | None:
        known = [getattr(part, name) for part in parts]
        return None if None in known else float(np.mean(known))

    return Value(
        *share(samples, settings, stream=STREAM),
        floor=over("floor"),
        n=int((~np.isnan(samples)).any(axis=0).sum()),
        protocol=f"Mean over {len(parts)} linked style factors, {what}. {parts[0].protocol}",
        ceiling=over("ceiling"),
        decoded=over("decoded"),
        samples=samples,
    )
