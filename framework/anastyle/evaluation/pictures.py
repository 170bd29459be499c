"""Grids of pictures in a report: samples of every variant under one another, each with its caption."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

LARGEST = 256  # pixels of an embedded picture's longer side
CAPTIONS = 6  # captions that are printed under a grid; the others are tooltips


@dataclass(frozen=True)
class Picture:
    """One image: PIL, uint8 array (H, W, 3) or (H, W), or uint8 tensor (3, H, W); and the words it was made from."""

    image: Any
    caption: str = ""


@dataclass(frozen=True)
class Strip:
    """A row of pictures: a variant's samples, or the real images."""

    name: str
    pictures: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """Strips one under another; a column shows the same caption in all of them."""

    title: str
    strips: Sequence[Strip]
    note: str = ""


def grid_html(grid: Grid) -> str:
    """Return strips of pictures, with the first captions printed under them."""
    columns = max(len(strip.pictures) for strip in grid.strips)
    captions = next((told for strip in grid.strips if any(told := [picture.caption for picture in strip.pictures])), [])
    numbered = len([caption for caption in captions if caption]) > 1
    cells = ["<span></span>", *(f'<span class="at">{at + 1 if numbered else ""}</span>' for at in range(columns))]
    for strip in grid.strips:
        note = f"<small>{escape(strip.note)}</small>" if strip.note else ""
        cells.append(f'<span class="name">{escape(strip.name)}{note}</span>')
        cells += [picture_html(strip, picture) for picture in strip.pictures]
        cells += ["<span></span>"] * (columns - len(strip.pictures))
    width = f"grid-template-columns: 116px repeat({columns}, minmax(42px, 1fr)); max-width: {116 + 117 * columns}px"
    told = "".join(f"<li>{escape(caption)}</li>" for caption in captions[:CAPTIONS]) if numbered else ""
    more = (
        '<p class="more">The other captions are shown when the pointer rests on an image.</p>'
        if len(captions) > CAPTIONS
        else ""
    )
    return f'<div class="scroll"><div class="strips" style="{width}">{"".join(cells)}</div></div>' + (
        f'<ol class="captions">{told}</ol>{more}' if told else ""
    )


def picture_html(strip: Strip, picture: Picture) -> str:
    """Return an embedded picture whose tooltip is its caption."""
    text = escape(picture.caption or strip.name, quote=True)
    return f'<img src="{embedded(picture.image)}" alt="{text}" title="{text}" loading="lazy">'


def embedded(image: Any) -> str:
    """Return a PNG data address of an image, no larger than a page needs."""
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[-1] not in (1, 3):
            array = array.transpose(1, 2, 0)
        if array.dtype != np.uint8:
            raise ValueError(f"a picture must be uint8, not {array.dtype}: scale it to 0-255 first")
        image = Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
    if max(image.size) > LARGEST:
        image = image.copy()
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
