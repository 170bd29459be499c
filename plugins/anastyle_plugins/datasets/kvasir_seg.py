"""Kvasir-SEG as published: colonoscopy frames with a polyp in ``images/``, their masks in ``masks/`` (Jha et al. 2020).

Masks are JPEGs of the image's name, taken at half of white. The bounding boxes are not read. Frames of one patient
are not marked by the publisher and can lie on both sides of a split; near-duplicates are joined.
"""

from anastyle import DATASETS
from anastyle_plugins.datasets._images import ImageFiles
from anastyle_plugins.datasets._rows import Problems, Row, key_of


@DATASETS.register
class KvasirSeg(ImageFiles):
    """1,000 polyps with masks; one class."""

    obtain = (
        "Kvasir-SEG is given out by Simula (Jha 2020): unpack kvasir-seg.zip, "
        "and name its folder Kvasir-SEG, which holds images and masks."
    )
    empty_masks = frozenset()

    def lacks(self) -> str:
        """Name what a source that is there does not hold, or nothing."""
        return " and no ".join(f"folder '{name}'" for name in ("images", "masks") if self.folder(name) is None)

    def rows(self, problems: Problems) -> list[Row]:
        """Return a row for every image."""
        folders = [self.folder(name) for name in ("images", "masks")]
        images, masks = (self.pictures(problems, folder) for folder in folders)
        for stem in sorted(masks.keys() - images.keys()):
            problems.add("a mask without its image", self.name(masks[stem]))
        for path in self.files():
            if not any(folder in path.parents for folder in folders):
                self.dropped[self.name(path)] = "boxes are not read" if path.suffix == ".json" else "beside the images"
        return [
            Row(key_of(stem), path, [masks[stem]] if stem in masks else [], "polyp", "a colonoscopy image of a polyp")
            for stem, path in images.items()
        ]
