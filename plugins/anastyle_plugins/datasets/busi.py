"""BUSI as published: breast ultrasound in folders ``benign``, ``malignant`` and ``normal`` (Al-Dhabyani et al. 2020).

``benign (1).png`` has its mask in ``benign (1)_mask.png`` and further ones in ``benign (1)_mask_1.png``: they are
merged. The mask of a normal image is empty; that of any other must not be. The set holds many near-duplicates, some
under two labels: they are kept on one side of the split and listed in ``audit.csv``.
"""

import re
from collections import defaultdict
from pathlib import Path

from anastyle import DATASETS
from anastyle_plugins.datasets._images import ImageFiles
from anastyle_plugins.datasets._rows import Problems, Row, key_of

TEXTS = {
    "benign": "an ultrasound image of a benign breast lesion",
    "malignant": "an ultrasound image of a malignant breast lesion",
    "normal": "an ultrasound image of normal breast tissue",
}
MASK = re.compile(r"(.+?)_mask(?:_\d+)*$")


@DATASETS.register
class Busi(ImageFiles):
    """780 images, 437 benign, 210 malignant and 133 normal."""

    obtain = (
        "BUSI is given out by Cairo University (Al-Dhabyani 2020): unpack Dataset_BUSI.zip, "
        "and name its folder Dataset_BUSI_with_GT."
    )
    empty_masks = frozenset({"normal"})

    def lacks(self) -> str:
        """Name what a source that is there does not hold, or nothing."""
        return " and no ".join(f"folder '{label}'" for label in TEXTS if self.folder(label) is None)

    def rows(self, problems: Problems) -> list[Row]:
        """Return a row for every image, with all its masks."""
        rows = []
        for label, text in TEXTS.items():
            pictures = self.pictures(problems, self.folder(label))
            if not pictures:
                problems.add("a class without an image", label)
            masks: dict[str, list[Path]] = defaultdict(list)
            for stem in sorted(pictures):
                if named := MASK.match(stem):
                    masks[named[1]].append(pictures.pop(stem))
            rows += [Row(key_of(stem), path, masks.pop(stem, []), label, text) for stem, path in pictures.items()]
            for path in (path for paths in masks.values() for path in paths):
                problems.add("a mask without its image", self.name(path))
        return rows
