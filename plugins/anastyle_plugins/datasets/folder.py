"""Any folder of images: with a CSV of their masks, labels and words, or sorted into class folders.

A CSV (UTF-8, paths relative to it) has a column ``image`` and, as far as they are known, ``id``, ``mask`` (several
joined by ``;``), ``label``, ``text``, ``anatomy``, ``style``, ``group`` and ``split``. An ``attributes.csv`` beside it
may give ``group`` by ``id``. Without a CSV, a folder's name is the label of the images in it, ``<image>.txt`` their
caption ("a photo of <label>" where there is none), and ``<image>_mask.png`` or ``masks/<image>.png`` their mask.

DICOM files and NIfTI volumes give a record for each slice that is asked for (see ``anastyle.data.volumes``).
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from PIL import Image

from anastyle import DATASETS, ConfigError
from anastyle.data.images import SUFFIXES, ImageError, Opened
from anastyle.data.volumes import Window, is_volume, open_slice, open_slice_mask, patient, slices, stem_of
from anastyle_plugins.datasets._images import ImageFiles
from anastyle_plugins.datasets._rows import Problems, Row, key_of, read_table

MASK_NAME = re.compile(r"(.+?)_(?:mask|segmentation)(?:_\d+)?$")


@DATASETS.register
class Folder(ImageFiles):
    """Images of one's own, read-only."""

    @dataclass
    class Config(ImageFiles.Config):
        """Where the images lie, how they are split, and what is taken of volumes."""

        masks: Literal["required", "optional", "none"] = "optional"
        metadata: str = "metadata.csv"  # where there is none, class folders are read
        normal: str = ""  # the one label whose masks may be empty; unnamed, all may
        slice_every: int = 0  # of a volume: 0 takes the middle slice, 1 all, k every k-th
        slice_axis: int = 2  # of a NIfTI volume: 0 sagittal, 1 coronal, 2 axial
        window: list[float] = field(default_factory=list)  # [low, high]: what is black and white in a volume
        percentiles: list[float] = field(default_factory=lambda: [0.5, 99.5])  # the same, where no window is given

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.slice_every < 0 or config.slice_axis not in (0, 1, 2):
            raise ConfigError("data: slice_every is 0 or more, and slice_axis 0, 1 or 2.")
        self.window = Window.of(config.window, config.percentiles)
        self.empty_masks = frozenset({config.normal}) if config.normal else None

    def rows(self, problems: Problems) -> list[Row]:
        """Return a row for every image, and for every slice of a volume."""
        listed = (self.source / self.config.metadata).is_file()
        rows = self._from_csv(problems) if listed else self._from_folders(problems)
        patients: dict[str, str] = {}
        sliced = []
        for row in rows:
            try:
                sliced += self._slices(row, patients) if is_volume(row.image) else [row]
            except ImageError as problem:
                problems.add(problem.reason, problem.name)
        return sliced

    def _slices(self, row: Row, patients: dict[str, str]) -> list[Row]:
        """Return a row for each slice asked for; those of one volume, or of one DICOM patient, are a group.

        The group is named after the patient's first file, so that nothing of the patient is copied.
        """
        name = self.name(row.image)
        chosen, count = slices(row.image, name, self.config.slice_every, self.config.slice_axis)
        who = patient(row.image, name)
        group = row.group or (patients.setdefault(who, row.key) if who else row.key)
        keys = {number: row.key if count == 1 else key_of(f"{row.key}_s{number:04d}") for number in chosen}
        return [replace(row, key=key, group=group, slice=number) for number, key in keys.items()]

    def _open(self, row: Row) -> Opened:
        if row.slice is None:
            return super()._open(row)
        return open_slice(row.image, self.name(row.image), row.slice, self.config.slice_axis, self.window)

    def _open_mask(self, path: Path, row: Row, opened: Opened) -> Image.Image:
        if row.slice is None or not is_volume(path):
            return super()._open_mask(path, row, opened)
        return open_slice_mask(path, self.name(path), row.slice, self.config.slice_axis, opened)

    def _from_csv(self, problems: Problems) -> list[Row]:
        table = read_table(self.source / self.config.metadata, required=["image"])
        beside = self.source / "attributes.csv"
        attributes = read_table(beside) if beside.is_file() and table and "group" not in table[0] else []
        groups = {line.get("id", ""): line.get("group", "") for line in attributes}
        rows = []
        for number, line in enumerate(table, start=2):
            if not line["image"]:
                problems.add("no image named", line.get("id") or f"line {number}")
                continue
            name = line.get("id") or stem_of(Path(line["image"]))
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
        for path in self.files():
            inside = path.relative_to(self.source)
            if not is_volume(path) and path.suffix.lower() not in SUFFIXES:
                if path.suffix != ".txt":
                    self.dropped[inside.as_posix()] = "not an image"
            elif inside.parts[0] == "masks":
                masks[key_of(Path(*inside.parts[1:]).with_name(stem_of(path)))].append(path)
            elif named := MASK_NAME.match(stem_of(path)):
                masks[key_of(place(inside).with_name(named[1]))].append(path)
            else:
                images.append(path)
        rows = []
        for path in images:
            inside = path.relative_to(self.source)
            key = key_of(place(inside).with_name(stem_of(path)))
            label = "" if inside.parent.name in ("", "images") else inside.parent.name
            words = path.with_name(f"{stem_of(path)}.txt")
            text = words.read_text(encoding="utf-8", errors="replace") if words.is_file() else described(label)
            rows.append(Row(key, path, masks.pop(key, []), label, " ".join(text.split())))
        for path in (path for paths in masks.values() for path in paths):
            problems.add("a mask without its image", self.name(path))
        for path in self.empty_folders():
            problems.add("a folder without an image; remove it, or fill it", self.name(path))
        return rows


def place(inside: Path) -> Path:
    """Return where an image lies in its source, a leading ``images/`` left out."""
    return Path(*inside.parts[1:]) if inside.parts[0] == "images" and len(inside.parts) > 1 else inside


def described(label: str) -> str:
    """Return the caption that a class name alone gives."""
    return f"a photo of {label.replace('_', ' ')}" if label else ""
