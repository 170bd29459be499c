"""What the datasets that read image files share: their options, their splits, and how a row becomes a record."""

import hashlib
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from anastyle import Caption, ConfigError, DataError, Dataset, MissingError, Record
from anastyle.data.audit import Audit, Twin
from anastyle.data.images import SUFFIXES, ImageError, Opened, open_image, open_mask, shrink
from anastyle_plugins.datasets import _rows
from anastyle_plugins.datasets._rows import Problems, Row, check_rows, draw_part, joined_groups, keep_given_splits


class ImageFiles(Dataset):
    """A set whose ``rows`` name image files; the splits are drawn by group, near-duplicates joined before."""

    draws_validation = False  # by ``_draw``, which knows every label
    empty_masks: frozenset[str] | None = None  # the labels whose masks may be empty; None: all, counted

    @dataclass
    class Config(Dataset.Config):
        """Where the images lie, and how they are split."""

        source: str = ""
        max_side: int = 1024  # longer images are shrunk to this; 0 keeps every size
        split: Literal["group", "random"] = "group"  # random is stamped leaky
        near_duplicates: Literal["join", "report"] = "join"  # join: they stay on one side of a split drawn by group
        test_share: float = 0.2
        validation_share: float = 0.1  # of all images, or of the training images a table gives; 0 sets none apart
        seed: int = 0
        masks: Literal["required", "optional", "none"] = "required"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not config.source:
            raise ConfigError("data.source: name the folder that holds the images.")
        if not 0 < config.test_share < 1:
            raise ConfigError(f"data.test_share: {config.test_share} is not between 0 and 1.")
        if not 0 <= config.validation_share < 1 - config.test_share:
            raise ConfigError(
                f"data.validation_share: {config.validation_share} is not from 0 to below 1 - test_share "
                f"({1 - config.test_share:g}), so that images are left to train on."
            )
        self.source = Path(config.source).expanduser()
        self.split_kind = ""
        self.twins: list[Twin] | None = None  # once they have been looked for
        self.dropped: dict[str, str] = {}
        self.notes: Counter[str] = Counter()

    @abstractmethod
    def rows(self, problems: Problems) -> list[Row]:
        """Return a row for every image, opening none; note what is dropped and what is at fault."""

    def lacks(self) -> str:
        """Name what a source that is there does not hold, or nothing."""
        return ""

    def missing(self) -> str:
        """Say what of the source is not there and how to get it, opening no image; nothing, if all is there."""
        if self.source.is_file():
            what = "is a file; unpack the archive and name its folder"
        elif not self.source.is_dir():
            what = "no such folder"
        elif not any(self.source.iterdir()):
            what = "no image in it; the folder is empty"
        elif lacking := self.lacks():
            what = f"no {lacking} in it"
        else:
            return ""
        return f"data.source={self.config.source}: {what}. {self.obtain}".rstrip()

    def identity(self) -> dict[str, object]:
        """Return the options and a digest of every file's name, size and time of change, and of the shared code."""
        self._require_source()
        files = sorted(path for path in self.source.rglob("*") if path.is_file())
        rows = [(path.relative_to(self.source).as_posix(), (s := path.stat()).st_size, s.st_mtime_ns) for path in files]
        options = {name: value for name, value in asdict(self.config).items() if name != "source"}
        code = b"".join(Path(file).read_bytes() for file in (__file__, _rows.__file__))
        digests = {"files": repr(rows).encode(), "shared code": code}
        return {**options, **{name: hashlib.sha256(content).hexdigest() for name, content in digests.items()}}

    def records(self) -> Iterator[Record]:
        """Yield every image; after the first fault the rest is only checked, and all faults are raised at the end."""
        self._require_source()
        problems = Problems()
        rows = self.rows(problems)
        if not rows and not problems.names:
            raise DataError(f"{self.source}: no image in it. Looked for {', '.join(sorted(SUFFIXES))}.")
        check_rows(rows, problems, self.notes)
        self._draw(rows, problems)
        for row in rows:
            try:
                record = self._record(row)
            except ImageError as problem:
                problems.add(problem.reason, problem.name)
                continue
            if not problems.names:
                yield record
        problems.refuse(self.source)

    def name(self, path: Path) -> str:
        """Return a file's place in the source."""
        return path.relative_to(self.source).as_posix() if path.is_relative_to(self.source) else str(path)

    def files(self, folder: Path | None = None) -> Iterator[Path]:
        """Yield the files of a folder and those below it, sorted; what only an operating system needs is dropped."""
        for path in sorted(path for path in (folder or self.source).rglob("*") if path.is_file()):
            if path.name.startswith((".", "__MACOSX")) or "__MACOSX" in path.parts:
                self.dropped[self.name(path)] = "of the operating system"
            else:
                yield path

    def folder(self, name: str) -> Path | None:
        """Return the folder of a name in the source, or one level down, or None."""
        places = (self.source / name, *sorted(self.source.glob(f"*/{name}")))
        return next((path for path in places if path.is_dir()), None)

    def empty_folders(self) -> list[Path]:
        """Return the folders of the source that hold nothing, below them neither."""
        folders = sorted(path for path in self.source.rglob("*") if path.is_dir() and "__MACOSX" not in path.parts)
        return [path for path in folders if not any(inner.is_file() for inner in path.rglob("*"))]

    def pictures(self, problems: Problems, folder: Path | None = None) -> dict[str, Path]:
        """Return the image files of a folder by their stem; a stem that comes twice is a fault."""
        found: dict[str, list[Path]] = defaultdict(list)
        for path in self.files(folder):
            if path.suffix.lower() in SUFFIXES:
                found[path.stem].append(path)
            else:
                self.dropped[self.name(path)] = "not an image"
        for paths in found.values():
            if len(paths) > 1:
                problems.add("two images of one name", " = ".join(map(self.name, paths)))
        return {stem: paths[0] for stem, paths in found.items()}

    def listed(self, images: dict[str, Path], ids: Iterable[str], problems: Problems, *, incomplete: bool) -> list[str]:
        """Return the ids of a table that have an image; an image without a row is dropped, a row without one named."""
        ids = list(ids)
        for stem in images.keys() - set(ids):
            self.dropped[self.name(images[stem])] = "no row in the table"
        for name in ids:
            if name not in images and incomplete:
                self.dropped[name] = "a row of the table without an image"
            elif name not in images:
                problems.add("a row without an image (incomplete=true does without)", name)
        return [name for name in ids if name in images]

    def _require_source(self) -> None:
        if problem := self.missing():
            raise (MissingError if not self.source.is_dir() or self.lacks() else DataError)(problem)

    def _open(self, row: Row) -> Opened:
        return open_image(row.image, self.name(row.image))

    def _open_mask(self, path: Path, row: Row, opened: Opened) -> Image.Image:
        return open_mask(path, opened, self.name(path))

    def _record(self, row: Row) -> Record:
        opened = self._open(row)
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
                raise ImageError(self.name(row.image), "no mask (masks=optional does without)")
            return None
        union = np.any([np.asarray(self._open_mask(path, row, opened)) > 0 for path in row.masks], axis=0)
        if not union.any() and self.empty_masks is not None and row.label not in self.empty_masks:
            raise ImageError(self.name(row.masks[0]), "an empty mask")
        self.notes["empty masks"] += int(not union.any())
        self.notes["merged masks"] += int(len(row.masks) > 1)
        return shrink(Image.fromarray(union.astype(np.uint8) * 255), self.config.max_side, mask=True)

    def _draw(self, rows: list[Row], problems: Problems) -> None:
        """Fill in each row's group and split; of splits that a table gives, validation alone may be drawn."""
        for row in rows:
            row.group = row.group or row.key
        config = self.config
        if any(row.split for row in rows):
            self.split_kind = "given"
            keep_given_splits(rows, problems)
            if not any(row.split == "validation" for row in rows):
                self._draw_validation(rows, problems)
            return
        if config.split == "random":
            self.split_kind = "leaky"
            groups = {row.key: row.key for row in rows}
        else:
            self.split_kind = "group"
            groups = self._joined(rows, rows, problems)
            self.notes["groups that near-duplicates or copies joined"] = len({row.group for row in rows}) - len(
                set(groups.values())
            )
            for row in rows:
                row.group = groups[row.key]
        for row in rows:
            row.split = "train"
        untested = draw_part("test", rows, groups, config.test_share, config.seed)
        self.notes["classes too small to be tested"] = len(untested)
        self._set_apart(rows, groups)

    def _draw_validation(self, rows: list[Row], problems: Problems) -> None:
        """Draw validation from the training rows that a table gives."""
        if self.config.validation_share:
            train = [row for row in rows if row.split == "train"]
            self._set_apart(train, self._joined(train, rows, problems))

    def _set_apart(self, rows: list[Row], groups: dict[str, str]) -> None:
        """Move a share of the training rows to validation."""
        if self.config.validation_share:
            small = draw_part("validation", rows, groups, self.config.validation_share, self.config.seed)
            self.notes["classes too small to be validated"] = len(small)

    def _joined(self, rows: list[Row], every: list[Row], problems: Problems) -> dict[str, str]:
        """Return the group of each row's key, groups that share copies or near-duplicates joined; look at every row."""
        if self.config.near_duplicates == "join" and not problems.names:
            self.twins = self._look_alike(every)
        keys = {row.key for row in rows}
        return joined_groups(rows, [(a, b) for a, b, _ in self.twins or () if {a, b} <= keys])

    def _look_alike(self, rows: list[Row]) -> list[Twin]:
        """Open every image once and return the near-duplicates; what cannot be opened is told when it is read."""
        audit = Audit()
        for row in rows:
            try:
                audit.add(row.key, shrink(self._open(row).image, self.config.max_side))
            except ImageError:
                continue
        return audit.twins()
