"""The factors that a caption of the phantom set states, one-hot: what the best encoder and the best reader could give.

A reference, not a language model: it looks the phantom's own words up. Words of no factor are passed over; a factor
that a caption does not speak of is all zeros.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch

from anastyle import EMBEDDERS, Embedded, Embedder, TextDims
from anastyle_plugins.datasets.phantom import ANATOMY, FACTORS, STYLE

SIZES = tuple(sum(map(len, kind.values())) for kind in (ANATOMY, STYLE))  # values of anatomy and of style
VALUES = [(name, value) for name, values in FACTORS.items() for value in values]
PLACE = {
    word: VALUES.index((name, value))
    for name, values in FACTORS.items()
    for value, words in values.items()
    for word in words
}
WORD = re.compile(
    rf"(?<![\w-])({'|'.join(sorted(map(re.escape, PLACE), key=len, reverse=True))})(?![\w-])", re.IGNORECASE
)


@EMBEDDERS.register
class PhantomFactors(Embedder):
    """One token, and as pooled embedding the same: anatomy's values, then style's, 0 or 1 each."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.dims = TextDims(token=len(VALUES), pooled=len(VALUES))

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Return no options: it is tiny."""
        return {}

    def embed(self, captions: list[str]) -> Embedded:
        """Return tokens (B, 1, 31), their mask, and pooled vectors (B, 31)."""
        values = torch.zeros(len(captions), len(VALUES))
        for row, caption in zip(values, captions, strict=True):
            row[[PLACE[word.lower()] for word in WORD.findall(caption)]] = 1
        return Embedded(values[:, None].clone(), torch.ones(len(captions), 1, dtype=torch.bool), values)

    def fingerprint(self) -> str:
        """Return a hash of the words that are looked up."""
        return "phantom-" + hashlib.sha256(repr(sorted(PLACE.items())).encode()).hexdigest()[:12]

    def export(self, folder: Path) -> dict[str, Any]:
        """Return the options that make it again; there is nothing to write."""
        return {}
