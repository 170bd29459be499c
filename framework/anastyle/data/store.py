"""The records of one split: their words at once, their pixels when they are first asked for."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anastyle.data.images import ImageError, open_image, pixels_of, resize, resize_mask
from anastyle.data.shards import IMAGE, MASK, TEXT, Shard, locate
from anastyle.errors import DataError
from anastyle.records import Caption
from anastyle.sources import Record

KEPT_BYTES = 1 << 30  # a split of fewer decoded bytes stays in memory after its first touch


@dataclass(frozen=True)
class Entry:
    """One record: its words, and where its pixels lie."""

    key: str
    label: str
    group: str
    caption: Caption
    factors: dict[str, str]
    shard: Path
    image: tuple[int, int]  # offset and bytes in the shard
    mask: tuple[int, int] | None


class Store:
    """Decodes the pixels of one split at one size; keeps them if they are few."""

    def __init__(self, root: Path, shards: list[Shard], size: int) -> None:
        self.size = size
        self.records: list[Entry] = [entry for shard in shards for entry in read_entries(root, shard)]
        self.keep = len(self.records) * size * size * 4 <= KEPT_BYTES
        self.kept: dict[str, tuple[Tensor, Tensor]] = {}  # what -> pixels (n, C, S, S) uint8, decoded (n,) bool

    def images(self, rows: Sequence[int]) -> Tensor:
        """Return (B, 3, S, S) uint8."""
        return self._get("image", 3, rows)

    def masks(self, rows: Sequence[int]) -> Tensor:
        """Return (B, 1, S, S) uint8 of 0 and 1."""
        return self._get("mask", 1, rows)

    def _get(self, what: str, channels: int, rows: Sequence[int]) -> Tensor:
        if not self.keep:
            return torch.stack([self._decode(what, row) for row in rows])
        if what not in self.kept:
            shape = (len(self.records), channels, self.size, self.size)
            self.kept[what] = torch.zeros(shape, dtype=torch.uint8), torch.zeros(shape[0], dtype=torch.bool)
        pixels, decoded = self.kept[what]
        at = torch.tensor(rows, dtype=torch.long)
        for row in at[~decoded[at]].tolist():
            pixels[row] = self._decode(what, row)
            decoded[row] = True
        return pixels[at]

    def _decode(self, what: str, row: int) -> Tensor:
        entry = self.records[row]
        at = entry.image if what == "image" else entry.mask
        assert at is not None  # masks are asked only of records that have one
        try:
            image = open_image(_read(entry.shard, at), f"{entry.shard}: {what} of record '{entry.key}'").image
        except ImageError as error:
            raise DataError(f"{error}. Prepare the set again.") from error
        if what == "image":
            return pixels_of(resize(image, self.size))
        return (pixels_of(resize_mask(image, self.size))[:1] > 127).to(torch.uint8)


def read_entries(root: Path, shard: Shard) -> list[Entry]:
    """Read the words of a shard's records."""
    path = root / shard.file
    index = locate(root, shard)
    if len(index) != shard.count:
        raise DataError(f"{path}: {len(index)} records, not {shard.count}. Prepare the set again.")
    entries = []
    with path.open("rb") as file:
        for key, parts in index.items():
            file.seek(parts[TEXT][0])
            try:
                text = json.loads(file.read(parts[TEXT][1]))
                caption = Caption(**text["caption"])
                words = (text["label"], text["group"], caption, text["factors"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}: record '{key}' has damaged words. Prepare the set again.") from error
            entries.append(Entry(key, *words, path, parts[IMAGE], parts.get(MASK)))
    return entries


def records_of(root: Path, shard: Shard, wanted: Callable[[str], bool] = lambda key: True) -> Iterator[Record]:
    """Yield a shard's records whole, in the size they are stored in; images of other keys are not decoded.

    Raises:
        DataError: an image or a mask is damaged.
    """
    for entry in (entry for entry in read_entries(root, shard) if wanted(entry.key)):
        where = f"{entry.shard}: record '{entry.key}'"
        try:
            image = open_image(_read(entry.shard, entry.image), where).image
            mask = open_image(_read(entry.shard, entry.mask), where).image.convert("L") if entry.mask else None
        except ImageError as error:
            raise DataError(f"{error}. Prepare the set again.") from error
        yield Record(entry.key, image, mask, entry.caption, entry.label, entry.group, shard.split, entry.factors)


def _read(path: Path, at: tuple[int, int]) -> bytes:
    with path.open("rb") as file:
        file.seek(at[0])
        return file.read(at[1])
