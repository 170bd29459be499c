"""A small phantom set of three parts, prepared as a folder."""

from dataclasses import fields
from pathlib import Path

from anastyle import DATASETS
from anastyle.data.shards import write_shards


def write(folder: Path, *, train: int = 48, validation: int = 24, test: int = 32, size: int = 32) -> Path:
    """Write train, validation and test of these many images; return the folder."""
    cls = DATASETS.get("phantom")
    none = {option.name: 0 for option in fields(cls.Config) if option.name == "validation"}  # we draw our own
    drawn = cls(cls.Config(train=train + validation, test=test, image_size=size, **none))
    records = [record for record in drawn.records() if record.split in ("train", "test")]
    held = [at for at, record in enumerate(records) if record.split == "train"][train:]
    parted = [r._replace(split="validation") if at in held else r for at, r in enumerate(records)]
    info = {
        "dataset": "phantom",
        "factors": {name: list(values) for name, values in cls.factors.items()},
        "anatomy_factors": list(cls.anatomy_factors),
    }
    order = ("train", "validation", "test")
    write_shards(iter(sorted(parted, key=lambda record: order.index(record.split))), folder, info=info)
    return folder
