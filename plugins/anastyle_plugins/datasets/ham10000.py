"""HAM10000 as published: two folders of dermoscopic images, a metadata table, lesion masks (Tschandl 2018, 2020).

Images are any ``ISIC_*.jpg`` in or under the source, masks any ``<id>_segmentation.png``. Several images can show one
lesion: it is the group that the split keeps together.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from anastyle import DATASETS
from anastyle_plugins.datasets._images import ImageFiles
from anastyle_plugins.datasets._rows import Problems, Row, by_id, read_table

TABLE = re.compile(r"HAM10000_metadata(\.csv|\.tab|\.txt)?")
COLUMNS = ("lesion_id", "image_id", "dx")
DIAGNOSES = {
    "akiec": "actinic_keratosis",  # and intraepithelial carcinoma (Bowen's disease)
    "bcc": "basal_cell_carcinoma",
    "bkl": "benign_keratosis",  # seborrhoeic keratosis, solar lentigo, lichen-planus-like keratosis
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic_nevus",
    "vasc": "vascular_lesion",  # angioma, angiokeratoma, pyogenic granuloma, haemorrhage
}


@DATASETS.register
class Ham10000(ImageFiles):
    """10,015 dermoscopic images of 7,470 lesions, seven diagnoses."""

    obtain = (
        "HAM10000 is on the Harvard Dataverse (Tschandl 2018): unpack HAM10000_images_part_1, _part_2, "
        "HAM10000_segmentations_lesion_tschandl and HAM10000_metadata into one folder."
    )
    empty_masks = frozenset()

    @dataclass
    class Config(ImageFiles.Config):
        """Where the images lie, and how they are split."""

        incomplete: bool = False  # take the images that are there; else a row without its image is a fault

    def lacks(self) -> str:
        """Name what a source that is there does not hold, or nothing."""
        return "" if self._table() else "HAM10000_metadata.csv"

    def rows(self, problems: Problems) -> list[Row]:
        """Return a row for every image that the table names."""
        table = self._table()
        assert table is not None  # lacks() has seen it
        lines = by_id(read_table(table, COLUMNS), "image_id", problems)
        images, masks = self._files(table, problems)
        rows = []
        for name in self.listed(images, lines, problems, incomplete=self.config.incomplete):
            line = lines[name]
            if line["dx"] not in DIAGNOSES:
                problems.add(f"a diagnosis other than {', '.join(DIAGNOSES)}", f"{name} ({line['dx']})")
                continue
            label = DIAGNOSES[line["dx"]]
            text = f"a dermoscopic image of {label.replace('_', ' ')}"
            rows.append(Row(name, images[name], masks.get(name, []), label, text, group=line["lesion_id"]))
        return rows

    def _table(self) -> Path | None:
        return next(
            (path for path in sorted(self.source.rglob("HAM10000_metadata*")) if TABLE.fullmatch(path.name)), None
        )

    def _files(self, table: Path, problems: Problems) -> tuple[dict[str, Path], dict[str, list[Path]]]:
        """Return images and masks by id."""
        found = self.pictures(problems)
        self.dropped.pop(self.name(table), None)
        images, masks = {}, defaultdict(list)
        for stem, path in found.items():
            if stem.endswith("_segmentation"):
                masks[stem.removesuffix("_segmentation")].append(path)
            elif stem.startswith("ISIC_"):
                images[stem] = path
            else:
                self.dropped[self.name(path)] = "not named ISIC_<number>"
        for name in masks.keys() - images.keys():
            self.dropped.update({self.name(path): "a mask without its image" for path in masks[name]})
        return images, masks
