"""Prepared sets on disk: webdataset tars beside a manifest that counts and hashes them.

Members of a record are ``<key>.image.png``, ``<key>.mask.png`` (where there is one) and ``<key>.json``. A set is
written beside its place and renamed into it, the manifest last: it is there whole, or not at all.
"""

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from webdataset.writer import TarWriter

from anastyle.data.images import png
from anastyle.errors import DataError, listing
from anastyle.files import sha256_of
from anastyle.sources import Link, Record

VERSION = 1
MANIFEST = "manifest.json"
SHARD_RECORDS = 1000
KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")  # no dot: webdataset ends a key at the first one
SPLIT = re.compile(r"[a-z]{1,20}")
UNLABELLED = "unlabelled"
LOST = "records lost with damaged shards"  # a note
IMAGE, MASK, TEXT = "image.png", "mask.png", "json"
MOST_MEMBERS = 3 * SHARD_RECORDS


@dataclass(frozen=True)
class Shard:
    """One tar of a set."""

    file: str
    split: str
    count: int  # records
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a prepared set holds, and how it came about."""

    shards: list[Shard]
    classes: list[str]  # sorted
    factors: dict[str, list[str]] = field(default_factory=dict)  # factor -> values, where known
    anatomy_factors: list[str] = field(default_factory=list)
    links: dict[str, Link] = field(default_factory=dict)  # of style factors that follow anatomy in training, if any
    split_kind: str = "given"  # group, given, or leaky: near-identical images may lie on both sides
    dropped: dict[str, str] = field(default_factory=dict)  # file -> why it was left out
    notes: dict[str, int] = field(default_factory=dict)  # conversions and oddities, counted
    dataset: str = ""
    identity: str = ""  # hash of the options and inputs it was made from
    fingerprint: str = ""  # hash of the shards' hashes: the same for the same records
    version: int = VERSION

    def count(self, split: str) -> int:
        """Return the number of records in a split."""
        return sum(shard.count for shard in self.shards if shard.split == split)

    @property
    def splits(self) -> list[str]:
        """Name the splits, in the order they were written."""
        return list(dict.fromkeys(shard.split for shard in self.shards))

    def without(self, files: Collection[str]) -> "Manifest":
        """Return the manifest of the same set without some shards; counts what they held."""
        kept = [shard for shard in self.shards if shard.file not in files]
        lost = sum(shard.count for shard in self.shards) - sum(shard.count for shard in kept)
        return replace(self, shards=kept, fingerprint=fingerprint_of(kept), notes={**self.notes, LOST: lost})

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a prepared set.

        Raises:
            DataError: it is not there, not readable, or of another version.
        """
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] != VERSION:
                raise DataError(f"{path}: version {content['version']}, not {VERSION}. Run `anastyle prepare` again.")
            shards = [Shard(**shard) for shard in content.pop("shards")]
            if any(Path(shard.file).name != shard.file for shard in shards):
                raise DataError(f"{path}: names a shard outside its folder. Run `anastyle prepare` again.")
            return cls(shards=shards, **content)
        except FileNotFoundError:
            raise DataError(
                f"{folder}: no {MANIFEST}, so not a prepared set.\n"
                f"  Raw images? Run: anastyle prepare folder {folder} OUT, and use OUT."
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a manifest ({error}). Run `anastyle prepare` again.") from error


def write_shards(
    records: Iterator[Record], folder: Path, *, info: dict[str, Any], files: Mapping[str, bytes] | None = None
) -> Manifest:
    """Write records into a new folder, whole or not at all.

    Arguments:
        info: the manifest's further fields (factors, split_kind, dropped, ...). It is read when the records are
            exhausted, so that a dataset may fill in what it dropped on the way.
        files: further files of the folder, read at the same time.

    Raises:
        DataError: a key, split or mask cannot be stored, a key comes twice, or there is no record.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        manifest = _write(records, beside, info, {} if files is None else files)
        _sync(beside)
        os.rename(beside, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def scan(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Return where the parts of each record lie in a shard: key -> part -> (offset, bytes).

    Raises:
        DataError: the tar is cut short, or holds anything but complete records.
    """
    index: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for number, member in enumerate(tar):
                if number == MOST_MEMBERS:  # a tar can be crafted to go on for ever
                    raise DataError(f"{path}: more than the {MOST_MEMBERS} members of a shard. Prepare the set again.")
                key, _, part = member.name.partition(".")
                if not member.isreg() or not KEY.fullmatch(key) or part not in (IMAGE, MASK, TEXT):
                    raise DataError(
                        f"{path}: member '{member.name}' does not belong in a shard. Prepare the set again."
                    )
                index.setdefault(key, {})[part] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: damaged ({error}). Prepare the set again.") from error
    partial = [key for key, parts in index.items() if IMAGE not in parts or TEXT not in parts]
    if partial:
        raise DataError(f"{path}: incomplete records {', '.join(partial[:3])}. Prepare the set again.")
    return index


def locate(folder: Path, shard: Shard) -> dict[str, dict[str, tuple[int, int]]]:
    """Return :func:`scan` of a shard, from the index beside it while that fits the shard."""
    path = folder / shard.file
    try:
        stored = json.loads(_index_of(path).read_text(encoding="utf-8"))
        if stored["sha256"] == shard.sha256:
            return {
                key: {part: (at, size) for part, (at, size) in parts.items()} for key, parts in stored["at"].items()
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # an index is a convenience: the shard itself says the same
    return scan(path)


def fingerprint_of(shards: list[Shard]) -> str:
    """Return a hash of shards' hashes."""
    hashes = "".join(shard.sha256 for shard in sorted(shards, key=lambda shard: shard.file))
    return hashlib.sha256(hashes.encode()).hexdigest()


def _write(records: Iterator[Record], folder: Path, info: dict[str, Any], further: Mapping[str, bytes]) -> Manifest:
    writers: dict[str, _Writer] = {}
    keys: Counter[str] = Counter()
    classes: set[str] = set()
    met: dict[str, set[str]] = {}
    with ExitStack() as files:
        for record in records:
            _check(record)
            keys[record.key] += 1
            if keys[record.key] > 1:
                continue  # all of them are reported below
            classes.add(record.label or UNLABELLED)
            for name, value in record.factors.items():
                met.setdefault(name, set()).add(value)
            if record.split not in writers:
                writers[record.split] = files.enter_context(_Writer(folder, record.split))
            writers[record.split].add(record)
    twice = sorted(key for key, count in keys.items() if count > 1)
    if twice:
        raise DataError(f"{len(twice)} keys come more than once; every image needs its own:\n{listing(twice)}")
    if not keys:
        raise DataError("the dataset holds no image. Look at its source and options.")
    shards = [shard for writer in writers.values() for shard in writer.shards]
    extra = json.loads(json.dumps(info))
    extra["factors"] = _all_values(extra.get("factors", {}), met)
    manifest = Manifest(shards=shards, classes=sorted(classes), fingerprint=fingerprint_of(shards), **extra)
    for name, content in further.items():
        _write_file(folder / name, content)
    content = {name: value for name, value in asdict(manifest).items() if value or name != "links"}
    _write_file(folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False).encode())
    return manifest


def _check(record: Record) -> None:
    where = f"record '{record.key}'"
    if not KEY.fullmatch(record.key):
        raise DataError(f"{where}: a key is 1 to 80 letters, digits, '_' or '-'.")
    if not SPLIT.fullmatch(record.split):
        raise DataError(f"{where}: a split is a lower-case word such as 'train', not '{record.split}'.")
    if record.mask is not None and record.mask.size != record.image.size:
        raise DataError(f"{where}: mask {record.mask.size} and image {record.image.size} differ in size.")
    if not record.caption.text.strip():
        raise DataError(f"{where}: it has no caption.")


def _all_values(declared: dict[str, list[str]], met: dict[str, set[str]]) -> dict[str, list[str]]:
    """Return each factor's values: the declared ones in their order, then any others that were met."""
    names = [*declared, *sorted(set(met) - set(declared))]
    return {n: [*declared.get(n, []), *sorted(met.get(n, set()) - set(declared.get(n, [])))] for n in names}


class _Writer:
    """Writes one split, a new tar every thousand records."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.shards: list[Shard] = []
        self.count = 0
        self.file: IO[bytes] | None = None

    def add(self, record: Record) -> None:
        if self.file is None or self.count == SHARD_RECORDS:
            self._finish()
            self.path = self.folder / f"{self.split}-{len(self.shards):06d}.tar"
            self.file = self.path.open("wb")
            self.tar = TarWriter(self.file, encoder=False, mtime=0, user="", group="")
        self.tar.write(_sample(record))
        self.count += 1

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        elif self.file is not None:
            self.tar.close()
            self.file.close()

    def _finish(self) -> None:
        if self.file is None:
            return
        self.tar.close()
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        digest = sha256_of(self.path)
        _write_file(_index_of(self.path), json.dumps({"sha256": digest, "at": scan(self.path)}).encode())
        self.shards.append(Shard(self.path.name, self.split, self.count, digest, self.path.stat().st_size))
        self.file, self.count = None, 0


def _sample(record: Record) -> dict[str, Any]:
    text = {
        "caption": record.caption._asdict(),
        "label": record.label or UNLABELLED,
        "group": record.group or record.key,
        "split": record.split,
        "factors": record.factors,
    }
    sample = {"__key__": record.key, IMAGE: png(record.image), TEXT: json.dumps(text, sort_keys=True).encode()}
    if record.mask is not None:
        sample[MASK] = png(record.mask)
    return sample


def _index_of(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.index.json")


def _write_file(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make renames and new names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
