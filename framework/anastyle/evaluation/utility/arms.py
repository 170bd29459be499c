"""The arms of a comparison: what each network is trained on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anastyle.errors import DataError
from anastyle.evaluation.features import pixels_hash
from anastyle.evaluation.judge import Examples, at_side, pixels
from anastyle.streams import seed_for

MAJORITY, REAL, SYNTHETIC = "majority", "real", "synthetic"
FEWEST = 10  # synthetic images, or test images, below which nothing is compared


class Synthetic(NamedTuple):
    """Generated images and what they were asked to show."""

    images: Tensor  # uint8 (n, 3, S, S)
    labels: Tensor  # (n,)
    masks: Tensor | None = None  # (n, 1, S, S) in {0, 1}, of a system that paints masks too
    asked: Tensor | None = None  # (n,) rows of the test split whose captions were asked for; None where none was


class Pool(NamedTuple):
    """Images to learn from, or to be tested on."""

    images: Tensor  # uint8 (n, 3, s, s)
    labels: Tensor  # (n,)
    masks: Tensor | None = None  # uint8 (n, 1, s, s) in {0, 1}

    def take(self, rows: Tensor) -> "Pool":
        """Return some of the images, in that order."""
        return Pool(self.images[rows], self.labels[rows], None if self.masks is None else self.masks[rows])

    def fingerprint(self) -> str:
        """Name the pool by all that is in it."""
        return pixels_hash(*(part for part in self if part is not None))


class Pools(NamedTuple):
    """Everything a comparison looks at, at one size."""

    real: Pool
    synthetic: Pool
    test: Pool
    groups: list[str]  # of the test images
    left_out: int  # test images that the synthetic ones were asked for, and the rest of their groups

    @property
    def units(self) -> int:
        """Return how many groups the test images are of."""
        return len(set(self.groups))


class Arm(NamedTuple):
    """What one network is trained on."""

    name: str
    real: bool = True
    repeated: float = 0  # real images once more: as many as this share of the synthetic ones, of the same classes
    synthetic: float = 0  # this share of the synthetic ones
    control: str = ""  # the arm that a gain is measured against

    @property
    def key(self) -> str:
        """Return the name as part of a metric's key."""
        return self.name.replace(" + ", "_").replace(" ", "_")


def arms(ratios: Sequence[float], *, alone: bool = True) -> list[Arm]:
    """Return the arms for these shares of the synthetic images; each share has its own control.

    Arguments:
        alone: with the arm of synthetic images alone.
    """
    named = {ratio: "" if ratio == 1 else f"{ratio:g} " for ratio in sorted(ratios, reverse=True)}
    controls = {ratio: f"real + {word}duplicates" for ratio, word in named.items()}
    most = next(iter(controls.values()))
    found = [Arm(REAL, control=most), *(Arm(name, repeated=ratio) for ratio, name in controls.items())]
    if alone:
        found.append(Arm(SYNTHETIC, real=False, synthetic=1, control=most))
    return found + [
        Arm(f"real + {word}synthetic", synthetic=ratio, control=controls[ratio]) for ratio, word in named.items()
    ]


def training_set(arm: Arm, real: Pool, synthetic: Pool, seed: int) -> Pool:
    """Return what an arm learns from; for one seed, an arm and its control hold as many images of each class."""
    share = max(arm.repeated, arm.synthetic)
    if not share:
        return real
    rng = np.random.default_rng(seed_for(seed, "utility"))
    count = max(1, round(share * len(synthetic.labels)))
    chosen = torch.from_numpy(rng.permutation(len(synthetic.labels))[:count])
    further = synthetic.take(chosen)
    if arm.repeated:
        further = real.take(duplicates(real.labels, further.labels, rng))
    return joined(real, further) if arm.real else further


def duplicates(labels: Tensor, wanted: Tensor, rng: np.random.Generator) -> Tensor:
    """Return rows of ``labels`` (n,) with the classes of ``wanted`` (m,), each row as often as any other of its class.

    Raises:
        DataError: a wanted class has no row.
    """
    rows = torch.empty_like(wanted)
    for label in wanted.unique():
        owned = torch.nonzero(labels == label).flatten().numpy()
        if not len(owned):
            raise DataError(
                f"synthetic images were asked for class {int(label)}, of which there is no real training image: "
                "no control can stand beside them. Leave them out."
            )
        places = wanted == label
        rows[places] = torch.from_numpy(np.resize(rng.permutation(owned), int(places.sum())))
    return rows


def joined(one: Pool, other: Pool) -> Pool:
    """Return the images of both."""
    masks = None if one.masks is None or other.masks is None else torch.cat([one.masks, other.masks])
    return Pool(torch.cat([one.images, other.images]), torch.cat([one.labels, other.labels]), masks)


def gather(synthetic: Synthetic, train: Examples, test: Examples, max_side: int, *, masks: bool) -> Pools:
    """Return everything at one size, without the test images whose captions the synthetic ones were asked for.

    Arguments:
        masks: where they exist, are they wanted?

    Raises:
        DataError: images, labels and masks do not belong together, or too few images are left.
    """
    check(synthetic)
    side = min(max_side, train.image(0).shape[-1], synthetic.images.shape[-1])
    groups = groups_of(test)
    told = {groups[row] for row in ([] if synthetic.asked is None else synthetic.asked.tolist())}
    rows = [row for row, group in enumerate(groups) if group not in told]
    if len(rows) < FEWEST:
        raise DataError(
            f"{len(test) - len(rows)} of {len(test)} test images have a caption, or a group, that synthetic images "
            f"were asked for: {len(rows)} are left to test on. Ask for training captions, or for fewer images."
        )
    real, tested = pool(train, side, range(len(train))), pool(test, side, rows)
    painted = Pool(
        at_side(synthetic.images, side),
        synthetic.labels.long(),
        None if synthetic.masks is None else smaller(synthetic.masks, side),
    )
    if not masks:
        real, painted, tested = (part._replace(masks=None) for part in (real, painted, tested))
    return Pools(real, painted, tested, [groups[row] for row in rows], len(test) - len(rows))


def pool(split: Examples, side: int, rows: Sequence[int]) -> Pool:
    """Return some of a split's images at ``side`` pixels."""
    images, masks = pixels(split, side, list(rows))
    return Pool(images, split.labels[list(rows)].long(), masks)


def smaller(masks: Tensor, side: int) -> Tensor:
    """Return masks, uint8 (n, 1, side, side)."""
    return F.interpolate(masks.float(), size=(side, side), mode="nearest").to(torch.uint8)


def groups_of(split: Examples) -> list[str]:
    """Return what each image of a split belongs to (a lesion, a patient), or a name of its own."""
    known = getattr(split, "groups", None) or [""] * len(split)
    return [group or f"row {row}" for row, group in enumerate(known)]


def check(synthetic: Synthetic) -> None:
    """Raise ``DataError`` when the parts of a synthetic set cannot belong together."""
    images = synthetic.images
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise DataError(f"synthetic images must be uint8 (n, 3, S, S); they are {images.dtype} {tuple(images.shape)}")
    if len(images) < FEWEST:
        raise DataError(f"there are {len(images)} synthetic images; {FEWEST} is the least. Generate more.")
    for name, part in zip(Synthetic._fields[1:], synthetic[1:], strict=True):
        if part is not None and len(part) != len(images):
            raise DataError(f"there are {len(images)} synthetic images and {len(part)} of their {name}")
