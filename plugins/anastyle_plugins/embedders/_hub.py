"""What the frozen language models of the hub share: they stay as they are, and their files name them."""

from functools import cached_property
from typing import Self

from anastyle import Embedder
from anastyle.weights import identity

ENCODER, TOKENIZER = "text_encoder", "tokenizer"  # what pipelines call their folders


class HubEmbedder(Embedder):
    """A model whose config names it as ``model``."""

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: the language model is frozen, its dropout stays off."""
        return super().train(False)

    def fingerprint(self) -> str:
        """Return the model's name and a hash of its weights, vocabulary and configuration."""
        return f"{self.config.model.rstrip('/').rsplit('/', 1)[-1]}-{self._hash}"

    @cached_property
    def _hash(self) -> str:
        return identity(self.checkpoints(self.config)[0])
