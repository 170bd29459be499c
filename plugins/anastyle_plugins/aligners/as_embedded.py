"""Factors that an embedder gives already: its pooled numbers, parted in two. Nothing is learnt.

With ``phantom_factors`` it is the reference above every encoder: one-hot factors through the same fuser.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anastyle import ALIGNERS, Aligner, ConfigError, Embedded, FactorDims, Factors, Reading, TextDims


@ALIGNERS.register
class AsEmbedded(Aligner):
    """The first numbers are anatomy, the rest style, a token of each."""

    gives = frozenset({"factors"})

    @dataclass
    class Config(Aligner.Config):
        """Where the numbers are parted."""

        anatomy: int = 18
        """How many belong to anatomy; of ``phantom_factors`` 18."""

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Return options for a pooled embedding of a few numbers."""
        return {"anatomy": 8}

    def __init__(self, config: Config, *, text: TextDims, dims: FactorDims | None = None) -> None:
        super().__init__(config)
        if not 0 < config.anatomy < text.pooled:
            raise ConfigError(f"aligner.anatomy: {config.anatomy} of {text.pooled} numbers leave nothing for one side.")
        self.dims = FactorDims((1, config.anatomy), (1, text.pooled - config.anatomy))

    def forward(self, embedded: Embedded) -> Reading:
        """Return the pooled numbers (B, P) as factors (B, 1, anatomy) and (B, 1, P - anatomy)."""
        parted = embedded.pooled.split([size for _, size in self.dims], dim=1)
        return Reading(Factors(*(part[:, None] for part in parted)))
