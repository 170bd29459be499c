"""Turning a dataset, as its publisher ships it, into a prepared set: ``anastyle prepare NAME [SOURCE] OUT``.

Splits are drawn by group (patient, lesion), never by image: test first, then validation from what is left for
training, so that the test part is the same with and without validation. Nothing is half-written or overwritten.
"""

import hashlib
import inspect
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from filelock import FileLock

from anastyle.config import section
from anastyle.data.audit import FILE as AUDIT
from anastyle.data.audit import Audit, Seen, digest, findings, side_of
from anastyle.data.shards import Manifest, write_shards
from anastyle.data.split import PreparedSet
from anastyle.errors import ConfigError, DataError, MissingError, listing
from anastyle.registry import DATASETS
from anastyle.sources import Dataset, Record

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
OURS = ("name", "root", "image_size", "captions", "on_bad_shard")  # keys of a data section that are not the dataset's


class _OwnValidationError(Exception):
    """The dataset gives a validation part, so that none is to be drawn."""


def prepare(dataset_name: str, options: Mapping[str, Any], out: str | Path) -> Manifest:
    """Write a dataset into a new folder and return its manifest; a folder that holds just this set is left as it is.

    Arguments:
        options: of the dataset plugin, as in an experiment file.

    Raises:
        ConfigError: no such dataset or option.
        DataError: the inputs cannot be used, or ``out`` holds something else.
    """
    out = Path(out)
    cls, config = section(DATASETS, {"name": dataset_name, **options}, where="data")
    dataset: Dataset = cls(config)
    identity = _identity(dataset_name, dataset)
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.parent / f".{out.name}.lock"):
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            return _existing(out, identity)
        for leftover in out.parent.glob(f".{out.name}.partial-*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        info = {
            "dataset": dataset_name,
            "identity": identity,
            "factors": {name: list(values) for name, values in dataset.factors.items()},
            "anatomy_factors": list(dataset.anatomy_factors),
            "links": dataset.drawn_links(),
        }
        try:
            return _written(dataset, info, out, validation=dataset.draws_validation)
        except _OwnValidationError:
            return _written(cls(config), info, out, validation=False)


def prepared(data_section: Mapping[str, Any], output: Path) -> PreparedSet:
    """Return the set that the ``data`` section of an experiment asks for.

    With ``root``, the folder that ``anastyle prepare`` wrote; else the dataset ``name``, prepared on first use into
    ``<output>/data/<name>-<hash>`` and opened from there afterwards. Every shard is hashed on first use.

    Raises:
        MissingError: ``root`` is not there.
        ConfigError: neither ``root`` nor ``name``, or options that the dataset does not have.
        DataError: the set is damaged, or its inputs cannot be used.
    """
    careful = {"on_bad_shard": data_section.get("on_bad_shard", "refuse"), "hashed": Path(output) / "cache" / "hashed"}
    if data_section.get("root"):
        return PreparedSet.open(data_section["root"], **careful)
    name = data_section.get("name")
    if not name:
        raise ConfigError("data: give a dataset's 'name', or the 'root' of a folder that `anastyle prepare` wrote.")
    options = dataset_options(data_section)
    cls, config = section(DATASETS, {"name": name, **options}, where="data")
    folder = Path(output) / "data" / f"{name}-{_identity(name, cls(config))[:12]}"
    if not folder.is_dir():
        prepare(name, options, folder)
    return PreparedSet.open(folder, **careful)


def dataset_options(data_section: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an experiment's ``data`` section is the named dataset's."""
    options = {key: value for key, value in data_section.items() if key not in OURS}
    known = {option.name for option in fields(DATASETS.get(data_section["name"]).Config)}
    if data_section.get("image_size") and "image_size" in known:
        options["image_size"] = data_section["image_size"]
    return options


def draw_groups(sizes: Mapping[str, int], target: float, seed: int) -> set[str]:
    """Draw groups for a part until they hold ``target`` images, to within half a group.

    Arguments:
        sizes: images of each group.

    Groups are met in the order of a salted hash, so a group's place does not hang on how the set is sorted.
    """
    taken, held = set[str](), 0
    for group in sorted(sizes, key=lambda group: hashlib.sha1(f"{seed}/{group}".encode()).digest()):
        if held + sizes[group] / 2 <= target:
            taken.add(group)
            held += sizes[group]
    return taken


def _identity(name: str, dataset: Dataset) -> str:
    """Hash all that decides what is written: options, inputs, and the code that reads or draws them."""
    own = getattr(dataset, "identity", None)
    code = Path(inspect.getfile(type(dataset))).read_bytes()
    content = {
        "dataset": name,
        "options": own() if own else asdict(dataset.config),
        "code": hashlib.sha256(code).hexdigest(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _existing(out: Path, identity: str) -> Manifest:
    """Return the manifest of a folder that is already there, if it is this very set."""
    try:
        manifest = PreparedSet.open(out).manifest
    except (DataError, MissingError) as error:
        raise DataError(f"{out}: is in the way, and not a whole prepared set. Choose another.\n  {error}") from error
    if manifest.identity != identity:
        raise DataError(
            f"{out}: holds another set ('{manifest.dataset}', other options, inputs or version).\n"
            f"  Choose another folder, or delete this one first."
        )
    return manifest


def _written(dataset: Dataset, info: dict[str, Any], out: Path, *, validation: bool) -> Manifest:
    """Write the records, a validation part drawn from those for training if so asked.

    Raises:
        _OwnValidationError: it is asked for, and the dataset gives one.
    """
    info, files = dict(info), dict[str, bytes]()
    return write_shards(_checked(dataset, info, files, validation), out, info=info, files=files)


def _placed(record: Record, validation: bool) -> Record:
    """Return the record with its split: as given, or drawn by the hash of its group alone.

    A stream need not be read twice for that, and a group's place hangs on no other group.
    """
    if record.split not in ("", "train"):
        return record
    place = int.from_bytes(hashlib.sha1(f"split/{record.group or record.key}".encode()).digest()[:8], "big") / 2**64
    if not record.split and place < TEST_SHARE:
        return record._replace(split="test")
    apart = validation and TEST_SHARE <= place < TEST_SHARE + VALIDATION_SHARE
    return record._replace(split="validation" if apart else "train")


def _checked(dataset: Dataset, info: dict[str, Any], files: dict[str, bytes], validation: bool) -> Iterator[Record]:
    """Draw the splits that are not given, and refuse sets whose splits share a group or an image.

    What the dataset says of itself at the end (``split_kind``, ``dropped``, ``notes``) goes into ``info``;
    near-duplicates, which are reported and not refused, into ``files``. A dataset that has looked for them says so by
    ``twins``.
    """
    groups: dict[str, set[str]] = {}
    pixels: dict[bytes, dict[str, str]] = {}  # digest -> side -> key
    seen: dict[str, Seen] = {}
    audit = Audit()
    drawn = False
    for record in dataset.records():
        if validation and record.split == "validation":
            raise _OwnValidationError
        drawn |= not record.split
        record = _placed(record, validation)
        side = side_of(record.split)
        groups.setdefault(record.group or record.key, set()).add(side)
        seen[record.key] = Seen(record.split, record.label, digest(record.image))
        pixels.setdefault(seen[record.key].digest, {})[side] = record.key
        if dataset.audited and getattr(dataset, "twins", None) is None:
            audit.add(record.key, record.image)
        yield record
    shared = [f"group '{group}'" for group, splits in groups.items() if len(splits) > 1]
    shared += ["the same image: " + " = ".join(keys.values()) for keys in pixels.values() if len(keys) > 1]
    kind = getattr(dataset, "split_kind", "") or ("group" if drawn else "given")
    if shared and kind != "leaky":
        raise DataError(f"{len(shared)} leaks between the splits; split by group, or drop one side:\n{listing(shared)}")
    info["split_kind"] = kind
    info["dropped"] = dict(getattr(dataset, "dropped", {}))
    twins = getattr(dataset, "twins", None)
    found, listed = findings(audit.twins() if twins is None else twins, seen)
    if found:
        files[AUDIT] = listed
    info["notes"] = {**getattr(dataset, "notes", {}), **({"shared by splits": len(shared)} if shared else {}), **found}
