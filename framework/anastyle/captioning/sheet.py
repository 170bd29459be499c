"""A contact sheet: some images of a set, each with its mask's outline and its caption, to be checked by eye."""

from pathlib import Path
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from anastyle.captioning.write import all_records, shown
from anastyle.data.split import PreparedSet
from anastyle.errors import ConfigError
from anastyle.records import Caption
from anastyle.sources import Record

SIDE, WORDS, GAP = 190, 470, 8  # pixels: an image's longest side, the words beside it, and between them
LETTERS = 66  # of a line of words
COLUMNS = 2
OUTLINE = (0, 255, 60)


def write_sheet(prepared: PreparedSet, table: Path, sheet: Path, count: int = 20) -> None:
    """Write a PNG of ``count`` images with their captions, drawn by the hash of their keys: the same ones every time.

    Raises:
        ConfigError: the file is no PNG.
    """
    if sheet.suffix.lower() != ".png":
        raise ConfigError(f"sheet={sheet}: it is written as a PNG. Name it so: sheet={sheet.with_suffix('.png')}")
    captions = shown(table, count)
    records = all_records(prepared, wanted=captions.__contains__)
    cells = {record.key: _cell(record, *captions[record.key]) for record in records}
    ordered = [cells[key] for key in captions]
    rows = -(-len(ordered) // COLUMNS)
    width, height = ordered[0].size
    page = Image.new("RGB", (width * COLUMNS, height * rows), "white")
    for at, cell in enumerate(ordered):
        page.paste(cell, (at // rows * width, at % rows * height))
    sheet.parent.mkdir(parents=True, exist_ok=True)
    page.save(sheet)


def _cell(record: Record, caption: Caption | None, reason: str) -> Image.Image:
    cell = Image.new("RGB", (2 * SIDE + WORDS + 4 * GAP, SIDE + GAP), "white")
    for at, image in enumerate((record.image, outlined(record))):
        image = image.copy()
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        cell.paste(image, (GAP + at * (SIDE + GAP), GAP // 2))
    lines = [record.key]
    if reason:
        lines += wrap(f"REJECTED: {reason}", LETTERS)
    if caption is not None:
        for name in ("anatomy", "style", "text"):
            lines += wrap(f"{name.upper()}: {getattr(caption, name)}", LETTERS)
    font = ImageFont.load_default(13)
    ImageDraw.Draw(cell).multiline_text((2 * SIDE + 3 * GAP, GAP // 2), "\n".join(lines[:13]), "black", font, spacing=1)
    return cell


def outlined(record: Record) -> Image.Image:
    """Return the image with its mask's outline drawn in green."""
    if record.mask is None:
        return record.image
    grown = np.asarray(record.mask.filter(ImageFilter.MaxFilter(3))) > 127
    pixels = np.array(record.image)
    pixels[grown & ~(np.asarray(record.mask) > 127)] = OUTLINE
    return Image.fromarray(pixels)
