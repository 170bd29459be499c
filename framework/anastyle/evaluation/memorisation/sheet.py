"""The pairs that look most like copies, on one picture: generated on the left, its training image on the right."""

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from anastyle.data.images import picture_of
from anastyle.evaluation.memorisation.record import Pair
from anastyle.evaluation.memorisation.search import Pictures

SIDE, GAP, WORDS = 112, 2, 32  # pixels: of an image, between them, and of the words below
COLUMNS = 4


def pairs_sheet(pairs: list[Pair], generated: Tensor, train: Pictures) -> Image.Image:
    """Lay pairs out, each with what was found; ``generated`` is uint8 (n, 3, S, S)."""
    columns = min(COLUMNS, len(pairs))
    width, height = 2 * SIDE + 5 * GAP, SIDE + WORDS
    page = Image.new("RGB", (columns * width, -(-len(pairs) // columns) * height), "white")
    draw = ImageDraw.Draw(page)
    for at, pair in enumerate(pairs):
        left, top = at % columns * width, at // columns * height
        draw.multiline_text((left, top + SIDE), words(pair), fill="black", spacing=1)
        for image in (generated[pair.generated], train.pixels(torch.tensor([pair.row]))[0]):
            page.paste(picture_of(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left, top))
            left += SIDE + GAP
    return page


def words(pair: Pair) -> str:
    """Return what stands below a pair, in two lines."""
    found = f"{'copy' if pair.copy else 'near'}: ratio {pair.ratio:.2f}, {pair.space}"
    return f"{pair.generated} | {pair.train[-28:]}\n{found}{', same picture' if pair.same else ''}"
