"""Does an image show what its caption says? A captioner measures both images: for sets of which no factors are known.

A segmenter says where the lesion is, the captioner names what it sees there, attribute by attribute, and the same
captioner has named what it sees in the real image that the caption describes. The real image under the segmenter's
outline is the ceiling; an image of another caption is the floor.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from anastyle.data.images import picture_of
from anastyle.evaluation.bootstrap import share
from anastyle.evaluation.evaluate import mean_value
from anastyle.evaluation.judge import Examples
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.utility.arms import Pool, pool
from anastyle.evaluation.values import Value
from anastyle.records import Caption
from anastyle.sources import Captioner, Record

FAITHFUL, MEAN = "faithful/", "faithful_mean"
STREAM = 6  # of the bootstrap's draws
FEWEST = 20  # captions that tell an attribute, below which nothing is said of it
SIDE = 128  # pixels that smaller images are enlarged to: a captioner's words are made for pictures, not for icons
WORDLESS = Caption("")
Words = dict[str, str]  # "anatomy/size" -> "small"
Array = NDArray[np.float64]


class Reader:
    """A captioner that has seen the real training images, and what it says of the real test images.

    Attributes:
        asked: what it sees in each test image under its own mask.
    """

    def __init__(self, captioner: Captioner, name: str, train: Examples, test: Pool, side: int) -> None:
        self.captioner, self.name, self.test = captioner, name, test
        rows = range(len(train))
        seen, captions = pool(train, side, rows), getattr(train, "captions", None) or [WORDLESS] * len(train)
        keys = [str(row) for row in rows]
        captioner.restore(captioner.fit(lambda: (record(seen, row, captions[row]) for row in rows), keys))
        self.asked = self.words(self.test)

    def words(self, seen: Pool) -> list[Words]:
        """Return what the captioner sees in each image under its mask."""
        told = (self.captioner.attributes(record(seen, row)) for row in range(len(seen.images)))
        return [
            {f"{kind}/{name}": word for kind, found in some.items() for name, word in found.items()} for some in told
        ]


def record(seen: Pool, row: int, caption: Caption = WORDLESS) -> Record:
    """Return an image and its mask as a captioner takes them, small ones enlarged."""
    assert seen.masks is not None
    image, mask = picture_of(seen.images[row]), Image.fromarray(seen.masks[row, 0].numpy() * np.uint8(255))
    if max(image.size) < SIDE:
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        mask = mask.resize((SIDE, SIDE), Image.Resampling.BILINEAR).point([255 * (level > 127) for level in range(256)])
    return Record(str(row), image, mask, caption, caption.label)


def faithfulness(
    told: Mapping[str, Sequence[Words]], asked: Sequence[Words], reader: str, settings: Settings
) -> dict[str, Value]:
    """Return ``faithful/KIND/ATTRIBUTE``, the share of images that show what was asked, and the mean over attributes.

    Arguments:
        told: what is seen in the ``generated`` images, in the ``real`` ones of the same captions under the same
            segmenter, and in those after the autoencoder (``decoded``, or none).
        asked: what is seen in the real images under their own masks.
        reader: captioner and segmenter, for the protocol.

    An attribute that fewer than twenty captions tell, or of which all tell the same, is left out.
    """
    names, how = dict.fromkeys(name for words in asked for name in words), protocol(reader, len(asked), settings)
    values, right = {}, []
    for name in names:
        wanted = np.array([words.get(name, "") for words in asked])
        known = wanted != ""
        if known.sum() < FEWEST or len(set(wanted[known])) < 2:
            continue
        seen = {kind: np.array([words.get(name, "") for words in some]) for kind, some in told.items()}
        hits = {kind: (words == wanted).astype(float) for kind, words in seen.items()}
        right.append(np.where(known, hits["generated"], np.nan))
        values[FAITHFUL + name] = Value(
            *share(hits["generated"][known], settings, stream=STREAM),
            floor=by_chance(seen["generated"][known], wanted[known]),
            n=int(known.sum()),
            protocol=f"Share {how}",
            ceiling=float(hits["real"][known].mean()),
            decoded=float(hits["decoded"][known].mean()) if "decoded" in hits else None,
            samples=right[-1],
        )
    if values:
        how = f"Mean over {len(values)} attributes of the share {how}"
        values = {MEAN: mean_value(list(values.values()), np.stack(right), how, settings), **values}
    return values


def by_chance(seen: NDArray[np.str_], wanted: NDArray[np.str_]) -> float:
    """Return how often an image shows what another image's caption asks for, over all pairs of two."""
    words, counts = np.unique(wanted, return_counts=True)
    pairs = sum(int(count) * int((seen == word).sum()) for word, count in zip(words, counts, strict=True))
    own = int((seen == wanted).sum())
    return (pairs - own) / (len(wanted) * (len(wanted) - 1))


def protocol(reader: str, count: int, settings: Settings) -> str:
    """Return how an attribute is measured, in words."""
    return (
        f"of generated images in which {reader} sees what it sees in the real test image, under its own mask, that the "
        f"caption describes; of the first {count}, those whose caption tells it; floor: other captions' images; "
        "ceiling: that real image, outlined by the segmenter; "
        f"interval: 95 %, {settings.draws} bootstrap samples of images"
    )


def outlined(images: Tensor, masks: Tensor) -> Pool:
    """Return images, uint8 (n, 3, s, s), with their outlines, bool (n, 1, s, s)."""
    return Pool(images, torch.zeros(len(images), dtype=torch.long), masks.to(torch.uint8))
