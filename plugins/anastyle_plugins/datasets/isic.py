"""ISIC challenges and archive downloads: dermoscopic images, tables of diagnoses and metadata, lesion masks if any.

Images are any ``ISIC_*`` picture in or under the source, masks ``<id>_segmentation.png``. Every CSV there that names
images is read and joined by id: ground truth with a column per diagnosis (2018, 2019), metadata with a column
``diagnosis`` (2020, archive), lesion groupings. The patient, or else the lesion, is the group.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anastyle import DATASETS, DataError
from anastyle_plugins.datasets._images import ImageFiles
from anastyle_plugins.datasets._rows import Problems, Row, by_id, key_of, read_table
from anastyle_plugins.datasets.ham10000 import DIAGNOSES

IDS = ("image", "image_id", "image_name", "isic_id")
NAMED = ("diagnosis", "diagnosis_3", "diagnosis_2", "diagnosis_1", "benign_malignant")  # the most exact first
GROUPS = ("patient_id", "lesion_id")
ONE_HOT = {
    **{code.upper(): label for code, label in DIAGNOSES.items()},
    "AK": "actinic_keratosis",
    "SCC": "squamous_cell_carcinoma",
    "UNK": "unknown",
}
MASK = re.compile(r"(ISIC_.+)_segmentation$", re.IGNORECASE)


@DATASETS.register
class Isic(ImageFiles):
    """Dermoscopic images with a diagnosis."""

    obtain = (
        "ISIC images are given out by the International Skin Imaging Collaboration: unpack a challenge's images and "
        "its GroundTruth CSV, or an archive download with its metadata CSV, into one folder."
    )
    empty_masks = frozenset()

    @dataclass
    class Config(ImageFiles.Config):
        """Where the images lie, and how they are split."""

        masks: Literal["required", "optional", "none"] = "optional"
        incomplete: bool = False  # take the images that are there; else a row without its image is a fault

    def lacks(self) -> str:
        """Name what a source that is there does not hold, or nothing."""
        return "" if any(self.source.rglob("*.csv")) else "CSV of diagnoses"

    def rows(self, problems: Problems) -> list[Row]:
        """Return a row for every image that a table names."""
        images, masks = self._files(problems)
        facts = self._facts(problems)
        rows = []
        for name in self.listed(images, facts, problems, incomplete=self.config.incomplete):
            line = facts[name]
            label = _label(line)
            if not label:
                problems.add("no diagnosis, or several", name)
            text = f"a dermoscopic image of {label.replace('_', ' ')}"
            group = next((line[column] for column in GROUPS if line.get(column)), "")
            rows.append(Row(key_of(name), images[name], masks.get(name.lower(), []), label, text, group=group))
        return rows

    def _files(self, problems: Problems) -> tuple[dict[str, Path], dict[str, list[Path]]]:
        """Return images by id, and masks by lower-case id."""
        images, masks = {}, defaultdict(list)
        for stem, path in self.pictures(problems).items():
            if named := MASK.match(stem):
                masks[named[1].lower()].append(path)
            elif stem.startswith("ISIC_") and not stem.endswith("_superpixels"):
                images[stem] = path
            else:
                self.dropped[self.name(path)] = "not an ISIC image"
        known = {stem.lower() for stem in images}
        for name in masks.keys() - known:
            self.dropped.update({self.name(path): "a mask without its image" for path in masks[name]})
        return images, masks

    def _facts(self, problems: Problems) -> dict[str, dict[str, str]]:
        """Return what the tables say of each id."""
        facts: dict[str, dict[str, str]] = defaultdict(dict)
        columns = set[str]()
        for path in sorted(self.source.rglob("*.csv")):
            table = read_table(path)
            column = next((name for name in IDS if table and name in table[0]), "")
            self.dropped[self.name(path)] = "a table without ids"
            if column:
                del self.dropped[self.name(path)]
                columns |= table[0].keys()
            for name, line in by_id(table if column else [], column, problems).items():
                facts[name.removesuffix(".jpg")].update({title: value for title, value in line.items() if value})
        if not columns & {*ONE_HOT, *NAMED}:
            raise DataError(
                f"{self.source}: no CSV has both an id ({', '.join(IDS)}) and a diagnosis ({NAMED[0]}, MEL)."
            )
        return facts


def _label(line: dict[str, str]) -> str:
    """Return the diagnosis of a row; empty where there is none, or more than one."""
    if any(name in line for name in ONE_HOT):
        hot = [label for name, label in ONE_HOT.items() if line.get(name, "").startswith("1")]
        return hot[0] if len(hot) == 1 else ""
    named = next((line[name] for name in NAMED if line.get(name)), "")
    return re.sub(r"[^a-z0-9]+", "_", named.lower()).strip("_")
