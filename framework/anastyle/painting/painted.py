"""A folder of painted images: each a PNG that carries its provenance, listed in ``samples.csv``.

Files are written beside their place and renamed, so that an image is there whole or not at all.
"""

import csv
import io
import json
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from anastyle import __version__
from anastyle.files import write_whole

KEY = "anastyle"  # of the PNG's text that holds the provenance, as JSON
NOTE = "synthetic, not for clinical use"
LIST, GRID, MASKS = "samples.csv", "grid.png", "masks"
CIRCUMSTANCES = ("run", "run_folder", "versions")  # they differ where the picture does not
COLUMNS: tuple[str, ...] = ("id", "image", "mask", "label", "text", "anatomy", "style", "seed", "steps", "guidance",
           "guidance_anatomy", "guidance_style", "precision", "run", "diffuse", "note")  # fmt: skip


@lru_cache
def versions() -> dict[str, str]:
    """Return the versions that a picture was painted under."""
    return {"anastyle": __version__, **{name: version(name) for name in ("torch", "diffusers", "peft")}}


def write_image(path: Path, image: Image.Image, about: dict[str, Any]) -> None:
    """Write a PNG with its provenance as text, whole or not at all."""
    text = PngInfo()
    text.add_text("Comment", NOTE)
    text.add_text("Software", f"anastyle {__version__}")
    text.add_itxt(KEY, json.dumps(about, ensure_ascii=False, sort_keys=True))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def provenance(path: Path, *, whole: bool = False) -> dict[str, Any] | None:
    """Return what a PNG says of its origin, or None: no such file, or none of ours; ``whole`` decodes it too."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            about = json.loads(getattr(image, "text", {}).get(KEY, "null"))
            if whole:
                image.load()
    except (OSError, ValueError, SyntaxError):
        return None
    return about if isinstance(about, dict) else None


def same_picture(path: Path, about: dict[str, Any]) -> bool:
    """Say whether a file is there, whole, and was painted from the same weights, words and settings."""
    there = provenance(path, whole=True)
    if there is None or (there.get("mask") and not (path.parents[there["image"].count("/")] / there["mask"]).is_file()):
        return False
    made = json.loads(json.dumps(about))
    ours = {*made, *there} - {*CIRCUMSTANCES, "mask"}
    return all(there.get(name) == made.get(name) for name in ours)


def write_list(folder: Path) -> int:
    """List every painted image of a folder in ``samples.csv``, from what the images say; return their number.

    ``anastyle prepare folder FOLDER OUT metadata=samples.csv`` reads it.
    """
    rows = list(_rows(folder))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / LIST, text.getvalue().encode())
    return len(rows)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*.png")):
        about = None if path.name.startswith(".") else provenance(path)
        if about and about.get("image") == path.relative_to(folder).as_posix():
            yield {**about, "id": path.stem}


def sheet(paths: list[Path], columns: int, tile: int = 256) -> Image.Image:
    """Lay images out as one picture, each no wider than ``tile`` pixels, in rows of ``columns``."""
    with Image.open(paths[0]) as first:
        side = min(tile, max(first.size))
    lines = -(-len(paths) // columns)
    page = Image.new("RGB", (columns * (side + 2) - 2, lines * (side + 2) - 2), "white")
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
            page.paste(small, (i % columns * (side + 2), i // columns * (side + 2)))
    return page
