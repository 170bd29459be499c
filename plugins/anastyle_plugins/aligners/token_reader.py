"""The token reader: hands the language model's tokens on, so that a backbone attends to the words themselves."""

from typing import Any

from anastyle import ALIGNERS, Aligner, Embedded, FactorDims, Reading, TextDims


@ALIGNERS.register
class TokenReader(Aligner):
    """Reads no factors; the rows "without disentanglement" and plain text-to-image systems use it. No parameters."""

    gives = frozenset({"tokens"})

    def __init__(self, config: Any, *, text: TextDims, dims: FactorDims | None = None) -> None:
        super().__init__(config)

    def forward(self, embedded: Embedded) -> Reading:
        """Return tokens (B, T, E), mask (B, T) and pooled (B, P) as they came."""
        return Reading(tokens=embedded.tokens, mask=embedded.mask, pooled=embedded.pooled)
