"""Latent semantic analysis as a frozen text encoder: no download, fitted on captions in a second.

A caption's pooled embedding is its TF-IDF vector of one- and two-word terms under a truncated SVD (Deerwester et al.
1990). Its tokens are the words in order, each the SVD vector of its term beside those of its two neighbours, so that
"upper" before "left" is not "upper" before "right". Words never seen are left out.
"""

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from anastyle import EMBEDDERS, ConfigError, Embedded, Embedder, TextDims
from anastyle.weights import Checkpoint, find
from anastyle_plugins.pretrained import shipped

FIT = ("model.safetensors",)
WORD = r"[a-z0-9]+(?:-[a-z0-9]+)*"
KEPT = {"no", "not", "without", "top", "bottom", "one"}  # of scikit-learn's stop words


@EMBEDDERS.register
class TfidfSVD(Embedder):
    """TF-IDF and truncated SVD behind the interface of a language model."""

    @dataclass
    class Config(Embedder.Config):
        """Where it was fitted, and how wide it is."""

        path: str | None = None
        """A saved fit, or ``compact``: the shipped base's. None: fitted on the training captions."""
        dim: int = 64
        """Width of a word; a token is three of them wide."""
        pooled_dim: int = 128
        max_tokens: int = 32

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.fitted: dict[str, np.ndarray] = {}
        if config.path is not None:
            self.load(find(self.checkpoints(config)[0]))
        width = self.fitted["words"].shape[1] if self.fitted else config.dim
        pooled = self.fitted["components"].shape[0] if self.fitted else config.pooled_dim
        self.dims = TextDims(token=3 * width, pooled=pooled)

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Return the options of a tiny twin, for contract tests."""
        return {"dim": 8, "pooled_dim": 12, "max_tokens": 8}

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the saved fit that ``path`` points to."""
        return [Checkpoint("embedder.path", shipped(config.path, "embedder"), FIT)] if config.path else []

    def fit(self, captions: list[str]) -> None:
        """Fit vocabulary, inverse document frequencies and SVD on these captions; a loaded fit stays as it is."""
        if self.fitted:
            return
        from sklearn.decomposition import TruncatedSVD

        vectorizer = vectorizer_of(None)
        weights: Any = vectorizer.fit_transform(captions)  # sparse (captions, terms)
        terms = vectorizer.get_feature_names_out()
        rank = max(self.config.pooled_dim, self.config.dim)
        axes = TruncatedSVD(min(rank, min(weights.shape) - 1), random_state=0).fit(weights).components_
        assert axes is not None
        components = np.zeros((rank, len(terms)), np.float32)
        components[: len(axes)] = axes

        single = np.array([" " not in term for term in terms])
        words = np.zeros((int(single.sum()), self.config.dim), np.float32)
        reduced = TruncatedSVD(min(self.config.dim, min(single.sum(), len(captions)) - 1), random_state=0)
        axes = reduced.fit(weights[:, single]).components_  # (dim, words)
        assert axes is not None
        words[:, : len(axes)] = axes.T
        words /= np.linalg.norm(words, axis=1, keepdims=True) + 1e-8
        self.fitted = {
            "terms": np.frombuffer("\n".join(terms).encode(), np.uint8).copy(),
            "idf": vectorizer.idf_.astype(np.float32),
            "components": components[: self.config.pooled_dim],
            "words": words * np.sqrt(self.config.dim),
        }

    def embed(self, captions: list[str]) -> Embedded:
        """Return tokens (B, max_tokens, 3 * dim), their mask, and pooled vectors (B, pooled_dim) of unit variance."""
        if not self.fitted:
            raise ConfigError("embedder tfidf_svd: not fitted yet. Call fit(captions) first.")
        terms = bytes(self.fitted["terms"]).decode().split("\n")
        vectorizer = vectorizer_of(terms)
        vectorizer.idf_ = self.fitted["idf"]
        weights: Any = vectorizer.transform(captions)
        pooled = weights @ self.fitted["components"].T  # (B, pooled)
        pooled = pooled / (np.linalg.norm(pooled, axis=1, keepdims=True) + 1e-8) * np.sqrt(pooled.shape[1])
        tokens, mask = self._words(captions, [term for term in terms if " " not in term])
        return Embedded(torch.from_numpy(tokens), torch.from_numpy(mask), torch.from_numpy(pooled.astype(np.float32)))

    def _words(self, captions: list[str], vocabulary: list[str]) -> tuple[np.ndarray, np.ndarray]:
        row = {word: i for i, word in enumerate(vocabulary)}
        vectors = self.fitted["words"]
        width, length = vectors.shape[1], self.config.max_tokens
        tokens = np.zeros((len(captions), length, 3, width), np.float32)
        mask = np.zeros((len(captions), length), bool)
        for b, caption in enumerate(captions):
            known = [row[w] for w in re.findall(WORD, caption.lower()) if w in row][:length]
            if known:
                own = vectors[known]  # (words, width)
                tokens[b, : len(known), 1] = own
                tokens[b, 1 : len(known), 0] = own[:-1] / 2
                tokens[b, : len(known) - 1, 2] = own[1:] / 2
            mask[b, : max(1, len(known))] = True
        return tokens.reshape(len(captions), length, 3 * width), mask

    def fingerprint(self) -> str:
        """Return a hash of the fit."""
        digest = hashlib.sha256(f"{self.config.max_tokens}".encode())
        for name in sorted(self.fitted):
            digest.update(np.ascontiguousarray(self.fitted[name]).tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write the fit into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.fitted, folder / "model.safetensors")

    def export(self, folder: Path) -> dict[str, Any]:
        """Write the fit into a folder and return the options that load it from there."""
        self.save(folder)
        return {**asdict(self.config), "path": str(folder)}

    def load(self, folder: Path) -> None:
        """Read a fit that ``save`` wrote."""
        self.fitted = load_file(folder / "model.safetensors")

    def get_extra_state(self) -> dict[str, Tensor]:
        """Give the fit to ``state_dict``."""
        return {name: torch.from_numpy(value) for name, value in self.fitted.items()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take the fit from ``state_dict``."""
        self.fitted = {name: value.numpy() for name, value in state.items()}


def vectorizer_of(vocabulary: list[str] | None) -> Any:
    """Return scikit-learn's TF-IDF of one- and two-word terms."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer  # late: a check does without

    return TfidfVectorizer(
        token_pattern=WORD, ngram_range=(1, 2), stop_words=sorted(ENGLISH_STOP_WORDS - KEPT), sublinear_tf=True,
        vocabulary=vocabulary,
    )  # fmt: skip
