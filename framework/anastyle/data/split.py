"""A prepared set for training: map-style, with exact positions, read through a byte-offset index of its shards.

``PreparedSet.open(root).split("train", image_size=64)`` gives a ``Split``; stages attach frozen encodings to it and
ask for batches with just the fields they need.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import Dataset

from anastyle.data.captions import BUILT_IN, CaptionTable, read_table
from anastyle.data.images import signed
from anastyle.data.shards import LOST, Manifest, Shard
from anastyle.data.store import Entry, Store
from anastyle.errors import DataError, MissingError, listing
from anastyle.files import sha256_of
from anastyle.interfaces import Batch, Embedded, Factors
from anastyle.jsonlines import read_json, write_json
from anastyle.records import Caption
from anastyle.sources import Link

FIELDS = ("image", "mask", "label", "captions")
ATTACHED = ("latent", "embedded", "target")
UNKNOWN = -1  # the index of a factor that a record does not state

log = logging.getLogger("anastyle")

Attachable = Tensor | Embedded | Factors


class PreparedSet:
    """A folder that ``anastyle prepare`` wrote."""

    def __init__(self, root: Path, manifest: Manifest, *, written: str = "") -> None:
        self.root, self.manifest = root, manifest
        self._written = written or manifest.fingerprint  # of all that was prepared, whatever is left of it
        self._stores: dict[tuple[str, int], Store] = {}
        self._tables: dict[str, CaptionTable] = {}

    @classmethod
    def open(cls, root: str | Path, *, on_bad_shard: str = "refuse", hashed: Path | None = None) -> "PreparedSet":
        """Read the manifest and check that every shard is there, at its size and, if asked, with its bytes.

        Arguments:
            on_bad_shard: ``refuse``, or ``skip`` to leave shards out that are not as written.
            hashed: a folder that remembers which shards were hashed and have not changed since; None: none is hashed.

        Raises:
            MissingError: there is no such folder.
            DataError: it is not a prepared set, or shards are missing, cut short or changed; all of them at once.
        """
        root = Path(root)
        if not root.is_dir():
            raise MissingError(
                f"{root}: no such folder. Make it with one of\n"
                f"  anastyle prepare folder SOURCE {root}\n"
                f"  anastyle prepare phantom {root}"
            )
        manifest = Manifest.read(root)
        problems = {shard.file: problem for shard in manifest.shards if (problem := _misfit(root / shard.file, shard))}
        if hashed is not None:
            whole = [shard for shard in manifest.shards if shard.file not in problems]
            problems |= _changed_since(root, whole, hashed / f"{manifest.fingerprint[:16]}.json")
        if not problems or on_bad_shard == "refuse":
            _refuse(root, list(problems.values()))
            return cls(root, manifest)
        kept = manifest.without(problems)
        if lacking := set(manifest.splits) - set(kept.splits):
            _refuse(root, [*problems.values(), f"nothing is left of split {', '.join(sorted(lacking))}"])
        log.warning("%s: goes on without %s: %s", root, f"{kept.notes[LOST]} records", "; ".join(problems.values()))
        return cls(root, kept, written=manifest.fingerprint)

    @property
    def classes(self) -> list[str]:
        """The class names, sorted; a label is a position in them."""
        return self.manifest.classes

    @property
    def factors(self) -> dict[str, list[str]]:
        """The values of each known factor; empty where there is no ground truth."""
        return self.manifest.factors

    @property
    def anatomy_factors(self) -> list[str]:
        """Those of the factors that are anatomy; the others are style."""
        return self.manifest.anatomy_factors

    @property
    def links(self) -> dict[str, Link]:
        """How style factors follow anatomy in training: style factor -> link; empty where they are independent."""
        return self.manifest.links

    @property
    def has_validation(self) -> bool:
        """Is there a validation part? Sets written earlier have train and test alone."""
        return "validation" in self.manifest.splits

    @property
    def fingerprint(self) -> str:
        """A hash of every byte of every record."""
        return self.manifest.fingerprint

    def verify(self) -> None:
        """Hash every shard anew.

        Raises:
            DataError: shards whose bytes are not those that were written; all of them at once.
        """
        _refuse(self.root, list(_changed(self.root, self.manifest.shards).values()))

    def split(self, name: str, *, image_size: int = 64, captions: str = "attributes") -> "Split":
        """Return a split whose images are ``image_size`` pixels square.

        Arguments:
            captions: ``attributes``, the captions as prepared; ``class_label``, "a photo of <class>" instead; or the
                name of a table that ``anastyle caption`` wrote.

        Raises:
            DataError: the set has no such split, or the table has no caption for some of its records.
            MissingError: the set has no such table.
        """
        if name not in self.manifest.splits:
            raise DataError(f"{self.root}: there is no split '{name}', only {', '.join(self.manifest.splits)}.")
        if (name, image_size) not in self._stores:
            shards = [shard for shard in self.manifest.shards if shard.split == name]
            self._stores[name, image_size] = Store(self.root, shards, image_size)
        return Split(self, name, self._stores[name, image_size], captions=captions)

    def table(self, captions: str) -> CaptionTable | None:
        """Return the caption table of a name, or None for the kinds that need none."""
        if captions in BUILT_IN:
            return None
        if captions not in self._tables:
            self._tables[captions] = read_table(self.root, captions, self._written)
        return self._tables[captions]

    def captions_identity(self, captions: str) -> str:
        """Name what the captions of a kind say: the kind itself, or the contents of its table."""
        table = self.table(captions)
        return captions if table is None else f"table {table.digest}"


class _Kept(NamedTuple):
    """An attached encoding of a store's or a parent's rows."""

    value: Attachable
    rows: Tensor | None  # (n,) the value's row for each record, or None: the same


class Split(Dataset[dict[str, Any]]):
    """Records by position. Made by ``PreparedSet.split``; ``subset`` gives views that share its pixels."""

    def __init__(
        self, prepared: PreparedSet, name: str, store: Store, *, captions: str, rows: Tensor | None = None
    ) -> None:
        self.set, self.name = prepared, name
        self._store = store
        self._rows = torch.arange(len(store.records)) if rows is None else rows
        self._attached: dict[str, _Kept] = {}
        self.captions_kind = captions
        chosen = [store.records[row] for row in self._rows.tolist()]
        self.keys: list[str] = [record.key for record in chosen]
        table = prepared.table(captions)
        if table is not None:
            table.refuse_gaps(self.keys)
        self.captions: list[Caption] = [_caption(record, captions, table) for record in chosen]
        self.class_names: list[str] = prepared.classes
        self.labels: Tensor = _indices(self.class_names.index(record.label) for record in chosen)  # (n,)
        self.groups: list[str] = [record.group for record in chosen]
        self.factors: dict[str, Tensor] = {  # (n,) each: positions in factor_values[name]
            name: _indices(_position(record.factors.get(name), values) for record in chosen)
            for name, values in prepared.factors.items()
        }
        self.factor_values: dict[str, list[str]] = prepared.factors
        self.has_masks: bool = all(record.mask is not None for record in chosen)

    @property
    def image_size(self) -> int:
        """Pixels along a side."""
        return self._store.size

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one record for a plain torch DataLoader."""
        words = {"key": self.keys[index], "caption": self.captions[index].text}
        return {**words, "image": self.image(index), "label": self.labels[index]}

    def image(self, index: int) -> Tensor:
        """Return an image, (3, S, S) in [-1, 1]."""
        return signed(self.pixels([index])[0])

    def mask(self, index: int) -> Tensor | None:
        """Return a mask, (1, S, S) in {0, 1}, or None where the record has none."""
        row = int(self._rows[index])
        return None if self._store.records[row].mask is None else self._store.masks([row])[0].float()

    def pixels(self, indices: Iterable[int] | Tensor) -> Tensor:
        """Return images as stored numbers, uint8 (B, 3, S, S)."""
        return self._store.images(self._rows[_positions(indices)].tolist())

    def masks(self, indices: Iterable[int] | Tensor) -> Tensor:
        """Return masks, uint8 (B, 1, S, S) of 0 and 1.

        Raises:
            DataError: some of these records have none.
        """
        rows = self._rows[_positions(indices)].tolist()
        without = [record.key for row in rows if (record := self._store.records[row]).mask is None]
        if without:
            raise DataError(
                f"{self.set.root}: {len(without)} records have no mask, which are needed:\n{listing(without)}"
            )
        return self._store.masks(rows)

    def attach(self, name: str, value: Attachable) -> None:
        """Give every record a frozen encoding: ``latent``, ``embedded`` or ``target``, (n, ...) row by row."""
        if name not in ATTACHED:
            raise ValueError(f"cannot attach '{name}', only {', '.join(ATTACHED)}")
        rows = {len(part) for part in ([value] if isinstance(value, Tensor) else value)}
        if rows != {len(self)}:
            raise ValueError(f"'{name}' has {sorted(rows)} rows for the {len(self)} records of split '{self.name}'")
        self._attached[name] = _Kept(value, None)

    def batch(self, indices: Iterable[int] | Tensor, fields: Iterable[str]) -> Batch:
        """Return records with just the fields asked for.

        Arguments:
            indices: B positions in this split.
            fields: of image, mask, label, captions, and what was attached: latent, embedded, target.

        Raises:
            DataError: masks are asked of records without.
            ValueError: no such field, or nothing was attached under it.
        """
        at = _positions(indices)
        asked = set(fields)
        unknown = asked - set(FIELDS) - set(self._attached)
        if unknown:
            known = ", ".join([*FIELDS, *self._attached])
            raise ValueError(f"split '{self.name}' has no {', '.join(sorted(unknown))}; it has {known}")
        batch = Batch(keys=[self.keys[i] for i in at.tolist()], index=at)
        if "image" in asked:
            batch.image = signed(self.pixels(at))
        if "mask" in asked:
            batch.mask = self.masks(at).float()
        if "label" in asked:
            batch.label = self.labels[at]
        if "captions" in asked:
            batch.captions = [self.captions[i] for i in at.tolist()]
        for name in asked & set(ATTACHED):
            setattr(batch, name, _gather(self._attached[name], at))
        return batch

    def subset(self, indices: Iterable[int] | Tensor) -> "Split":
        """Return a view of some records, in the order given, with their attached encodings; nothing is copied."""
        at = _positions(indices)
        view = Split(self.set, self.name, self._store, captions=self.captions_kind, rows=self._rows[at])
        for name, (value, rows) in self._attached.items():
            view._attached[name] = _Kept(value, at if rows is None else rows[at])
        return view


def _misfit(path: Path, shard: Shard) -> str:
    """Say what is wrong with a shard at first sight, or nothing."""
    if not path.is_file():
        return f"{shard.file}: missing"
    size = path.stat().st_size
    return "" if size == shard.bytes else f"{shard.file}: {size:,} bytes, not {shard.bytes:,}"


def _changed(root: Path, shards: list[Shard]) -> dict[str, str]:
    """Name the shards that hash to something else, by file."""
    changed = [shard.file for shard in shards if sha256_of(root / shard.file) != shard.sha256]
    return {file: f"{file}: its bytes have changed" for file in changed}


def _changed_since(root: Path, shards: list[Shard], memory: Path) -> dict[str, str]:
    """Return :func:`_changed` of the shards that were touched since they were last hashed; the first rank hashes."""
    memory.parent.mkdir(parents=True, exist_ok=True)
    paths = {shard.file: (root / shard.file).resolve() for shard in shards}
    stamps = {file: [str(path), path.stat().st_size, path.stat().st_mtime_ns] for file, path in paths.items()}
    with FileLock(memory.with_suffix(".lock")):
        known = read_json(memory)
        problems = _changed(root, [shard for shard in shards if known.get(shard.file) != stamps[shard.file]])
        trusted = {file: stamp for file, stamp in stamps.items() if file not in problems}
        if trusted != known:
            write_json(memory, trusted)
    return problems


def _refuse(root: Path, problems: list[str]) -> None:
    if problems:
        raise DataError(f"{root}: {len(problems)} damaged shards. Copy or prepare the set again.\n{listing(problems)}")


def _caption(record: Entry, kind: str, table: CaptionTable | None) -> Caption:
    if table is not None:
        return table.captions[record.key]
    if kind == "attributes":
        return record.caption
    return Caption(f"a photo of {record.label.replace('_', ' ')}", label=record.label)


def _position(value: str | None, values: list[str]) -> int:
    return UNKNOWN if value is None else values.index(value)


def _positions(indices: Iterable[int] | Tensor) -> Tensor:
    return indices.cpu().long() if isinstance(indices, Tensor) else _indices(indices)


def _indices(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)


def _gather(kept: _Kept, at: Tensor) -> Attachable:
    rows = at if kept.rows is None else kept.rows[at]
    if isinstance(kept.value, Tensor):
        return kept.value[rows.to(kept.value.device)]
    return type(kept.value)(*(part[rows.to(part.device)] for part in kept.value))
