"""Any folder of images: with a CSV of their masks, labels and words, or sorted into class folders.

A CSV (UTF-8, paths relative to it) has a column ``image`` and, as far as they are known, ``id``, ``mask`` (several
joined by ``;``), ``label``, ``text``, ``anatomy``, ``style``, ``group`` and ``split``. An ``attributes.csv`` beside it
may give ``group`` by ``id``. Without a CSV, a folder's name is the label of the images in it, ``<image>.txt`` their
caption ("a photo of <label>" where there is none), and ``<image>_mask.png`` or ``masks/<image>.png`` their mask.
"""

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from anastyle import DATASETS, Caption, ConfigError, DataError, Dataset, MissingError, Record
from anastyle.data.images import SUFFIXES, VOLUMES, ImageError, Opened, open_image, open_mask, shrink
from anastyle.data.prepare import draw_test
from anastyle.errors import listing

MASK_NAME = re.compile(r"(.+?)_(?:mask|segmentation)(?:_\d+)?$")
NAMES_SHOWN = 10  # of the files with one and the same fault


@dataclass
class Row:
    """One image and what is known of it."""

    key: str
    image: Path
    masks: list[Path]
    label: str
    text: str
    anatomy: str = ""
    style: str = ""
    group: str = ""
    split: str = ""


class Problems:
    """Faults by kind, so that a person reads all of them at once."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, name: str) -> None:
        self.names[kind].append(name)

    def refuse(self, source: Path) -> None:
        """Raise what was gathered, if anything."""
        if not self.names:
            return
        lines = []
        for kind, names in self.names.items():
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            lines.append(f"{kind}: {', '.join(names[:NAMES_SHOWN])}{more}")
        count = sum(map(len, self.names.values()))
        raise DataError(f"{source}: {count} problems; mend these files or take them out.\n{listing(lines)}")


@DATASETS.register
class Folder(Dataset):
    """Images of one's own, read-only."""

    @dataclass
    class Config(Dataset.Config):
        """Where the images lie, and how they are split."""

        source: str = ""
        metadata: str = "metadata.csv"  # where there is none, class folders are read
        max_side: int = 1024  # longer images are shrunk to this; 0 keeps every size
        split: Literal["group", "random"] = "group"  # random is stamped leaky
        test_share: float = 0.2
        seed: int = 0
        masks: Literal["required", "optional", "none"] = "optional"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not config.source:
            raise ConfigError("data.source: name the folder that holds the images.")
        if not 0 < config.test_share < 1:
            raise ConfigError(f"data.test_share: {config.test_share} is not between 0 and 1.")
        self.source = Path(config.source)
        self.split_kind = ""
        self.dropped: dict[str, str] = {}
        self.notes: Counter[str] = Counter()

    def identity(self) -> dict[str, object]:
        """Return the options and a digest of every file's name, size and time of change."""
        self._require_source()
        files = sorted(path for path in self.source.rglob("*") if path.is_file())
        rows = [(path.relative_to(self.source).as_posix(), (s := path.stat()).st_size, s.st_mtime_ns) for path in files]
        options = {name: value for name, value in asdict(self.config).items() if name != "source"}
        return {**options, "files": hashlib.sha256(repr(rows).encode()).hexdigest()}

    def records(self) -> Iterator[Record]:
        """Yield every image; after the first fault the rest is only checked, and all faults are raised at the end."""
        self._require_source()
        problems = Problems()
        listed = (self.source / self.config.metadata).is_file()
        rows = self._from_csv(problems) if listed else self._from_folders(problems)
        if not rows and not problems.names:
            raise DataError(f"{self.source}: no image in it. Looked for {', '.join(sorted(SUFFIXES))}.")
        check_rows(rows, problems)
        self._draw_splits(rows, problems)
        for row in rows:
            try:
                record = self._record(row)
            except ImageError as problem:
                problems.add(problem.reason, problem.name)
                continue
            if not problems.names:
                yield record
        problems.refuse(self.source)

    def _require_source(self) -> None:
        if not self.source.is_dir():
            raise MissingError(f"{self.source}: no such folder. Give the one that holds the images as data.source.")

    def _record(self, row: Row) -> Record:
        opened = open_image(row.image, self._name(row.image))
        mask = self._mask(row, opened)
        if opened.converted:
            self.notes[opened.converted] += 1
        caption = Caption(row.text, row.anatomy, row.style, row.label)
        image = shrink(opened.image, self.config.max_side)
        return Record(row.key, image, mask, caption, label=row.label, group=row.group, split=row.split)

    def _mask(self, row: Row, opened: Opened) -> Image.Image | None:
        """Return the union of a row's masks."""
        if self.config.masks == "none":
            return None
        if not row.masks:
            if self.config.masks == "required":
                raise ImageError(self._name(row.image), "no mask (masks=optional does without)")
            return None
        union = np.any([np.asarray(open_mask(path, opened, self._name(path))) > 0 for path in row.masks], axis=0)
        self.notes["empty masks"] += int(not union.any())
        self.notes["merged masks"] += int(len(row.masks) > 1)
        return shrink(Image.fromarray(union.astype(np.uint8) * 255), self.config.max_side, mask=True)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.source).as_posix() if path.is_relative_to(self.source) else str(path)

    def _from_csv(self, problems: Problems) -> list[Row]:
        table = read_table(self.source / self.config.metadata)
        if table and "image" not in table[0]:
            raise DataError(f"{self.source / self.config.metadata}: no column 'image', only {', '.join(table[0])}.")
        beside = self.source / "attributes.csv"
        attributes = read_table(beside) if beside.is_file() and table and "group" not in table[0] else []
        groups = {line.get("id", ""): line.get("group", "") for line in attributes}
        rows = []
        for number, line in enumerate(table, start=2):
            if not line["image"]:
                problems.add("no image named", line.get("id") or f"line {number}")
                continue
            name = line.get("id") or Path(line["image"]).stem
            masks = [self.source / part.strip() for part in line.get("mask", "").split(";") if part.strip()]
            label = line.get("label", "")
            text = line["text"] if "text" in line else described(label)
            group = line.get("group") or groups.get(name, "")
            words = (line.get("anatomy", ""), line.get("style", ""), group, line.get("split", ""))
            rows.append(Row(key_of(name), self.source / line["image"], masks, label, text, *words))
        return rows

    def _from_folders(self, problems: Problems) -> list[Row]:
        images: list[Path] = []
        masks: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(path for path in self.source.rglob("*") if path.is_file()):
            inside = path.relative_to(self.source)
            if path.name.lower().endswith(VOLUMES):
                images.append(path)  # refused with the way out when it is opened
            elif path.suffix.lower() not in SUFFIXES:
                if path.suffix != ".txt":
                    self.dropped[inside.as_posix()] = "not an image"
            elif inside.parts[0] == "masks":
                masks[key_of(Path(*inside.parts[1:]).with_suffix(""))].append(path)
            elif named := MASK_NAME.match(path.stem):
                masks[key_of(place(inside).with_name(named[1]))].append(path)
            else:
                images.append(path)
        rows = []
        for path in images:
            inside = path.relative_to(self.source)
            key = key_of(place(inside).with_suffix(""))
            label = "" if inside.parent.name in ("", "images") else inside.parent.name
            words = path.with_suffix(".txt")
            text = words.read_text(encoding="utf-8", errors="replace") if words.is_file() else described(label)
            rows.append(Row(key, path, masks.pop(key, []), label, " ".join(text.split())))
        for path in (path for paths in masks.values() for path in paths):
            problems.add("a mask without its image", self._name(path))
        return rows

    def _draw_splits(self, rows: list[Row], problems: Problems) -> None:
        """Fill in each row's split, the same share of every label, unless the CSV gives them."""
        if any(row.split for row in rows):
            self.split_kind = "given"
            for row in rows:
                if row.split not in ("train", "test"):
                    problems.add("a split other than train or test", row.key)
            return
        random = self.config.split == "random"
        self.split_kind = "leaky" if random else "group"
        groups = {row.key: row.key for row in rows} if random else joined_groups(rows)
        labels = {groups[row.key]: row.label for row in rows}
        test: set[str] = set()
        for label in sorted(set(labels.values())):
            sizes = Counter(groups[row.key] for row in rows if labels[groups[row.key]] == label)
            test |= draw_test(sizes, self.config.test_share, self.config.seed)
        for row in rows:
            row.group = row.group or row.key
            row.split = "test" if groups[row.key] in test else "train"
            if not random:
                row.group = groups[row.key]


def check_rows(rows: list[Row], problems: Problems) -> None:
    """Note what is wrong before a file is opened: words, labels, names."""
    labelled = any(row.label for row in rows)
    for row in rows:
        if not row.text:
            problems.add("no caption", row.key)
        elif any(ord(letter) < 32 for letter in row.text):
            problems.add("control characters in the caption", row.key)
        if labelled and not row.label:
            problems.add("no label", row.key)
    for key, count in Counter(row.key for row in rows).items():
        if count > 1:
            problems.add("an id that comes more than once", key)


def joined_groups(rows: list[Row]) -> dict[str, str]:
    """Return the group of each key, groups that hold byte-identical files joined into one."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            group = parent[group]
        return group

    first: dict[bytes, str] = {}
    for row in rows:
        group = root(row.group or row.key)
        if row.image.is_file():
            twin = first.setdefault(hashlib.sha256(row.image.read_bytes()).digest(), group)
            parent[group] = root(twin)
    return {row.key: root(row.group or row.key) for row in rows}


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV, values stripped and on one line.

    Raises:
        DataError: it is not a UTF-8 CSV, or a row has more or fewer values than columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8. Save it as UTF-8 CSV.") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV ({error}).") from error
    ragged = [f"line {n}" for n, line in enumerate(lines, start=2) if None in line or None in line.values()]
    if ragged:
        raise DataError(f"{path}: rows that do not fit the columns; quote values with commas.\n{listing(ragged)}")
    return [{name.strip(): " ".join(value.split()) for name, value in line.items()} for line in lines]


def key_of(name: str | Path) -> str:
    """Return a name as a shard key: letters, digits, '_' and '-'; a long one keeps its start and a hash."""
    text = name.as_posix() if isinstance(name, Path) else name
    key = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_") or "image"
    return key if len(key) <= 80 else f"{key[:67]}-{hashlib.sha1(text.encode()).hexdigest()[:12]}"


def place(inside: Path) -> Path:
    """Return where an image lies in its source, a leading ``images/`` left out."""
    return Path(*inside.parts[1:]) if inside.parts[0] == "images" and len(inside.parts) > 1 else inside


def described(label: str) -> str:
    """Return the caption that a class name alone gives."""
    return f"a photo of {label.replace('_', ' ')}" if label else ""
