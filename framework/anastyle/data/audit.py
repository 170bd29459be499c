"""Near-duplicates: pictures that are the same up to encoding, size, brightness, calipers or a small crop or shift.

Whole pictures correlate for cheap reasons (a dark spot in the middle of skin, the black frame of an endoscope), so
what is compared is local structure: each thumbnail less its local mean, over its local spread. A 64-bit difference
hash and the correlation of small thumbnails propose pairs; the best correlation of larger ones over small shifts and
crops decides. Mirrored and turned copies are not looked for.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

KEPT = 72  # pixels along a side of the thumbnail that is kept of every image
COARSE, FINE = 32, 64  # and of those that propose, and decide
HASH_BITS = 8  # a pair is proposed with at most so many of 64 bits apart,
PROPOSED = 0.35  # or from this correlation on;
SAME = 0.5  # and is near-duplicate from this one on: breast ultrasound 0.5 to 1, distinct skin lesions below 0.45
CROPS = (0.94, 0.88)  # how much of a side one picture may show of the other
SHIFT = 4  # pixels of the fine thumbnail
GREY = 6.0  # local spread, in levels of 255, under which there is nothing to compare
HOPELESS = 0.25  # as it is; a crop will not make it the same
BLOCK, BATCH = 4096, 512  # images compared at a time, and pairs
FILE = "audit.csv"
SIDES = {"instruments": "train"}  # instruments may learn from training images, and are apart from the other parts
COLUMNS = ("key_a", "key_b", "split_a", "split_b", "correlation", "label_a", "label_b", "kind")


class Twin(NamedTuple):
    """Two near-duplicates."""

    first: str
    second: str
    correlation: float  # of local structure, in [0, 1]


@dataclass(frozen=True)
class Seen:
    """What is known of an audited record."""

    split: str
    label: str
    digest: bytes  # of its pixels


class Audit:
    """Gathers a thumbnail of every image, then names the near-duplicates among them."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._thumbnails: list[NDArray[np.uint8]] = []

    def add(self, key: str, image: Image.Image) -> None:
        """Take note of an image of any size and mode."""
        self.keys.append(key)
        self._thumbnails.append(np.asarray(image.convert("L").resize((KEPT, KEPT), Image.Resampling.BOX)))

    def twins(self) -> list[Twin]:
        """Return every pair of near-duplicates, in the order of their images."""
        if len(self.keys) < 2:
            return []
        kept = np.stack(self._thumbnails)  # (N, KEPT, KEPT)
        found = []
        for pairs in _proposals(kept):
            values = _correlations(kept, pairs)
            same = values >= SAME
            found += [(i, j, value) for (i, j), value in zip(pairs[same].tolist(), values[same].tolist(), strict=True)]
        return [Twin(self.keys[i], self.keys[j], round(min(value, 1.0), 3)) for i, j, value in sorted(found)]


def side_of(split: str) -> str:
    """Return the part of the set with which a split may share groups and images."""
    return SIDES.get(split, split)


def digest(image: Image.Image) -> bytes:
    """Name an image by its pixels."""
    return hashlib.sha1(image.tobytes()).digest()


def findings(twins: Sequence[Twin], seen: dict[str, Seen]) -> tuple[dict[str, int], bytes]:
    """Count near-duplicates for the manifest, and list them as CSV: those across the split first, then those whose
    labels contradict each other."""
    rows, counts = [], Counter[str]()
    for first, second, correlation in twins:
        a, b = seen[first], seen[second]
        across, contrary = side_of(a.split) != side_of(b.split), a.label != b.label
        kind = "identical" if a.digest == b.digest else "near"
        counts["near-duplicate pairs"] += 1
        counts["near-duplicate pairs across the split"] += int(across)
        counts["near-duplicate pairs of contradictory labels"] += int(contrary)
        row = (first, second, a.split, b.split, f"{correlation:.3f}", a.label, b.label, kind)
        rows.append((not across, not contrary, -correlation, row))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *(row for *_, row in sorted(rows))])
    return {name: count for name, count in counts.items() if count}, text.getvalue().encode()


def _proposals(kept: NDArray[np.uint8]) -> Iterator[NDArray[np.int64]]:
    """Yield pairs (P, 2) that a hash or a coarse correlation proposes, block by block."""
    structure = _structure(_sized(kept, COARSE), reach=3).reshape(len(kept), -1)
    norms = np.linalg.norm(structure, axis=1, keepdims=True)
    told = norms[:, 0] > 1.0  # an even picture is like any other
    structure /= np.maximum(norms, 1e-6)
    bits = _hashes(kept)
    for top in range(0, len(kept), BLOCK):
        rows = slice(top, top + BLOCK)
        for left in range(top, len(kept), BLOCK):
            columns = slice(left, left + BLOCK)
            alike = structure[rows] @ structure[columns].T > PROPOSED
            alike |= (bits[rows] @ bits[columns].T >= 64 - 2 * HASH_BITS) & told[rows, None] & told[None, columns]
            i, j = np.nonzero(np.triu(alike, 1) if left == top else alike)
            yield np.stack([i + top, j + left], axis=1)


def _correlations(kept: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the best correlation (P,) of each pair over small shifts and, where that may help, over crops."""
    best = np.zeros(len(pairs), np.float32)
    undecided = np.arange(len(pairs))
    for one, other in ((1.0, 1.0), *((1.0, crop) for crop in CROPS), *((crop, 1.0) for crop in CROPS)):
        if not len(undecided):
            break
        first, second = (_Spectra(kept, pairs[undecided, side], crop) for side, crop in enumerate((one, other)))
        for top in range(0, len(undecided), BATCH):
            part = slice(top, top + BATCH)
            at = undecided[part]
            best[at] = np.maximum(best[at], _peak(first[part], second[part]))
        undecided = undecided[(best[undecided] < SAME) & (best[undecided] > HOPELESS)]
    return best


class _Spectra:
    """The Fourier transforms of some thumbnails' local structure, scaled to unit norm; each is computed once."""

    def __init__(self, kept: NDArray[np.uint8], images: NDArray[np.int64], crop: float) -> None:
        distinct, self.places = np.unique(images, return_inverse=True)
        self.values = np.concatenate(
            [self._of(kept[distinct[top : top + BATCH]], crop) for top in range(0, len(distinct), BATCH)]
        )

    def __getitem__(self, part: slice) -> Array:
        return self.values[self.places[part]]

    @staticmethod
    def _of(kept: NDArray[np.uint8], crop: float) -> Array:
        fine = _structure(_sized(kept, FINE, crop), reach=4)
        norms = np.sqrt(np.square(fine).sum((1, 2), keepdims=True))
        return np.fft.rfft2(fine / np.maximum(norms, 1e-6))


def _peak(first: Array, second: Array) -> Array:
    """Return the best correlation (P,) over shifts of up to SHIFT pixels."""
    crossed = np.fft.irfft2(first * second.conj(), s=(FINE, FINE))
    near = np.r_[0 : SHIFT + 1, -SHIFT:0]
    return crossed[:, near][:, :, near].max((1, 2))


def _structure(images: Array, reach: int) -> Array:
    """Return images (N, S, S) less their local mean, over their local spread, in windows of 2 reach + 1 pixels."""
    mean = _window(images, reach)
    spread = np.sqrt(np.maximum(_window(np.square(images), reach) - np.square(mean), 0))
    return (images - mean) / (spread + GREY)


def _window(images: Array, reach: int) -> Array:
    """Return the mean of each pixel's window, (N, S, S), the edge repeated."""
    side = 2 * reach + 1
    for axis in (1, 2):
        padded = np.pad(images, [(0, 0) if a != axis else (reach, reach) for a in range(3)], mode="edge")
        images = _sums(padded, side, axis) / np.float32(side)
    return images


def _sums(padded: Array, side: int, axis: int) -> Array:
    """Return the sums of ``side`` neighbours along an axis."""
    length = padded.shape[axis] - side + 1
    views = [padded[:, k : k + length] if axis == 1 else padded[:, :, k : k + length] for k in range(side)]
    total = views[0] + views[1]
    for view in views[2:]:
        total += view
    return total


def _sized(kept: NDArray[np.uint8], size: int, crop: float = 1.0) -> Array:
    """Return the middle of thumbnails (N, KEPT, KEPT) at another size, (N, size, size)."""
    margin = KEPT * (1 - crop) / 2
    box = (margin, margin, KEPT - margin, KEPT - margin)
    resized = (Image.fromarray(one).resize((size, size), Image.Resampling.BILINEAR, box=box) for one in kept)
    return np.stack([np.asarray(one, np.float32) for one in resized])


def _hashes(kept: NDArray[np.uint8]) -> Array:
    """Return difference hashes as signs, (N, 64): is a cell brighter than its left neighbour?"""
    cells = np.stack([np.asarray(Image.fromarray(one).resize((9, 8), Image.Resampling.BOX), int) for one in kept])
    return np.where(cells[:, :, 1:] > cells[:, :, :-1], 1, -1).reshape(len(kept), 64).astype(np.float32)
