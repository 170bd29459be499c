"""The gate: a model that copies its training images too often does not pass.

A generated image counts as a copy when one training image is nearer to it, against the next ones, than to all but 1 %
of real held-out images (see ``calibrate``): in pixel space, or in the features of a network that is given. A model
fails when its copy rate is, with 95 % confidence, more than five points above what held-out images get by that rule.
"""

from dataclasses import replace

import torch
from torch import Tensor

from anastyle.evaluation.memorisation.bench import PIXEL, Bench, Look
from anastyle.evaluation.memorisation.calibrate import FEWEST_HELD, LEVEL, same_picture, wilson
from anastyle.evaluation.memorisation.record import Memorisation, Pair
from anastyle.evaluation.memorisation.search import NEIGHBOURS, Pictures
from anastyle.evaluation.memorisation.sheet import pairs_sheet
from anastyle.evaluation.reference import FEWEST
from anastyle.evaluation.values import Value
from anastyle.interfaces import Feature

MARGIN = 0.05  # of a copy rate, above what held-out images get
SHOWN = 24  # pairs on the sheet


def gate(
    generated: Tensor,
    train: Pictures,
    held: Pictures,
    features: dict[str, Feature] | None = None,
    *,
    bench: Bench | None = None,
    margin: float = MARGIN,
) -> Memorisation:
    """Judge whether generated images copy training images; undefined where too few real images say what is usual.

    Arguments:
        generated: uint8 (n, 3, S, S), two or more.
        held: real images that no training has seen.
        features: networks by name; each is one more space in which a copy may give itself away.
        bench: what ``Bench(train, held, features)`` made, to keep it from one variant to the next.
        margin: how far the copy rate may, with confidence, exceed that of held-out images.
    """
    if min(len(train), len(held)) < FEWEST:
        known = f"there are {len(train)} training and {len(held)} held-out images"
        return Memorisation("undefined", f"{known}; {FEWEST} of each is the least")
    bench = bench or Bench(train, held, features)
    look = bench.look(lambda rows: generated[rows], len(generated))
    pairs = worst_pairs(look, bench, generated)
    found = Memorisation(
        "undefined",
        f"{len(bench.usual.authentic)} held-out images show no training image; {FEWEST_HELD} are needed to calibrate",
        values={"authenticity": authenticity(look, bench)},
        thresholds=bench.thresholds,
        leaked=bench.leaked,
        pairs=pairs,
        sheet=pairs_sheet(pairs, generated, train),
    )
    return decided(found, look, bench, margin) if bench.thresholds else found


def decided(found: Memorisation, look: Look, bench: Bench, margin: float) -> Memorisation:
    """Return the record with its copy rate and a verdict."""
    copies, expected = (excess(some, bench.thresholds) <= 1 for some in (look, bench.usual))  # (S, n), (S, h)
    rate = copy_rate(copies, expected, bench)
    limit = (rate.floor or 0.0) + margin
    return replace(
        found,
        verdict="failed" if (rate.low or 0.0) > limit else "passed",
        reason=f"copy rate {percent(rate.value)} (95 % interval {percent(rate.low)} to {percent(rate.high)}) of "
        f"{rate.n} generated images; real held-out images: {percent(rate.floor)}; limit of the interval's lower "
        f"end: {percent(limit)}",
        limit=limit,
        values={"copy_rate": rate, **found.values},
        copies={name: int(some.sum()) for name, some in zip(bench.thresholds, copies, strict=True)},
    )


def excess(look: Look, thresholds: dict[str, float]) -> Tensor:
    """Return each image's ratio over the threshold, by space, (S, n); at most 1 is a copy."""
    return torch.stack([look.near[name].ratio / limit for name, limit in thresholds.items()])


def copy_rate(copies: Tensor, expected: Tensor, bench: Bench) -> Value:
    """Return the share of images that are copies in any space, (S, n), its floor from held-out ones, (S, h)."""
    spaces = "; or in ".join(space.words for space in bench.spaces.values())
    protocol = (
        f"Copy rate: share of {copies.shape[1]} generated images whose distance to the nearest of {len(bench.train)} "
        f"training images, over its mean to the {NEIGHBOURS} nearest, is as small as in {percent(LEVEL)} of "
        f"{expected.shape[1]} real held-out images; in {spaces}; {bench.leaked} more held-out images show a training "
        "image again and are left out; floor: those held-out images by the same rule; interval: 95 %, Wilson"
    )
    return share(copies.any(dim=0), expected.any(dim=0), protocol)


def authenticity(look: Look, bench: Bench) -> Value:
    """Return the authenticity of Alaa et al. 2022, How Faithful is your Synthetic Data?

    It has no part in the verdict: where training images have near-duplicates, it takes their copies for authentic.
    """
    real = bench.usual.authentic
    protocol = (
        f"Authenticity (Alaa et al. 2022): share of {len(look.authentic)} generated images that are farther from the "
        f"nearest of {len(bench.train)} training images than that one is from the next; in "
        f"{bench.spaces[PIXEL].words}; floor: {len(real)} real held-out images; interval: 95 %, Wilson"
    )
    return share(look.authentic, real, protocol)


def percent(part: float | None) -> str:
    """Return a share in words."""
    return f"{100 * (part or 0.0):.1f} %"


def share(hits: Tensor, real: Tensor, protocol: str) -> Value:
    """Return the share of hits (n,) bool and, as its floor, that among real images (h,)."""
    floor = float(real.double().mean()) if len(real) else None
    return Value(*wilson(int(hits.sum()), len(hits)), floor=floor, n=len(hits), protocol=protocol)


def worst_pairs(look: Look, bench: Bench, generated: Tensor) -> list[Pair]:
    """Return the pairs that look most like copies, each in the space that shows it best, the worst first."""
    scale = bench.thresholds or {PIXEL: 1.0}
    over, spaces = excess(look, scale).min(dim=0)  # (n,)
    pairs = []
    for at in over.argsort()[:SHOWN].tolist():
        space = list(scale)[int(spaces[at])]
        near = look.near[space]
        row = int(near.index[at])
        same = same_picture(generated[at], bench.train.pixels(torch.tensor([row]))[0])
        copy = bool(bench.thresholds) and float(over[at]) <= 1
        found = float(near.distance[at]), float(near.ratio[at])
        pairs.append(Pair(at, bench.train.keys[row], row, space, *found, copy=copy, same=same))
    return pairs
