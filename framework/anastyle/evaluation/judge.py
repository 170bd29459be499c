"""The judge: a small classifier, trained on real images, that says which class and which factors an image shows.

It is an instrument, not a stage: its own network, its own seed, its own short loop, trained once per data set. Its
answers on generated images mean something only beside its answers on real held-out images, which is why every
accuracy is reported with that ceiling.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from anastyle.data.images import unsigned
from anastyle.errors import DataError
from anastyle.evaluation.classifier import Classifier
from anastyle.evaluation.resizing import resized

LABEL = "label"
CHUNK = 256  # images looked at together


class Examples(Protocol):
    """What the instruments read of a split."""

    @property
    def labels(self) -> Tensor: ...  # (n,)

    @property
    def factors(self) -> dict[str, Tensor]: ...  # each (n,), -1 where unknown

    def __len__(self) -> int: ...

    def image(self, index: int, /) -> Tensor: ...  # (3, S, S) in [-1, 1]

    def mask(self, index: int, /) -> Tensor | None: ...  # (1, S, S) in {0, 1}


class Judge:
    """A trained classifier and what may be asked of it."""

    def __init__(self, model: Classifier) -> None:
        self.model = model.eval()

    @classmethod
    def train(
        cls,
        split: Examples,
        seed: int,
        steps: int = 600,
        *,
        heads: dict[str, int] | None = None,
        max_side: int = 128,
        batch_size: int = 64,
        lr: float = 5e-3,
        device: str | torch.device = "cpu",
    ) -> "Judge":
        """Train a judge on a split of real images; ``heads`` defaults to what ``questions`` finds in it.

        Raises:
            DataError: one class and no factors, so there is nothing to judge.
        """
        targets = answers_of(split)
        heads = heads or questions(split)
        if not heads:
            raise DataError("the split has one class and no factors: there is nothing a judge could tell apart")
        side = min(max_side, split.image(0).shape[-1])
        images, masks = pixels(split, side)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Classifier(heads, side=side).to(device)
        model.teach(images, targets, masks, steps=steps, seed=seed, batch_size=batch_size, lr=lr)
        return cls(model)

    @property
    def heads(self) -> dict[str, int]:
        """What the judge is asked, and how many answers there are."""
        return self.model.heads

    @torch.no_grad()
    def answers(self, images: Tensor) -> dict[str, Tensor]:
        """Return the judge's answer to every question, (n,), about uint8 images (n, 3, H, W)."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.heads}
        for image in shown(images):
            for name, logits in self.model(image.to(self.model.device)).items():
                found[name].append(logits.argmax(dim=1).cpu())
        return {name: torch.cat(parts) for name, parts in found.items()}

    def accuracy(self, images: Tensor, factors: dict[str, Tensor]) -> dict[str, float]:
        """Return the share of uint8 images (n, 3, H, W) judged to show what was asked; targets of -1 do not count."""
        answers = self.answers(images)
        scores = {}
        for name, target in factors.items():
            known = target >= 0
            if name in answers and known.any():
                scores[name] = float((answers[name] == target)[known].float().mean())
        return scores

    def save(self, path: Path) -> None:
        """Write the judge as one safetensors file."""
        self.model.save(path)

    @classmethod
    def load(cls, path: Path) -> "Judge":
        """Read what ``save`` wrote; see ``Classifier.load``."""
        return cls(Classifier.load(path))

    def fingerprint(self) -> str:
        """Name the judge by its weights."""
        return f"judge-{self.model.fingerprint()}"


def questions(split: Examples) -> dict[str, int]:
    """Return what can be asked of a split, and how many answers there are: its label and its factors."""
    return {name: int(target.max()) + 1 for name, target in answers_of(split).items() if int(target.max()) > 0}


def answers_of(split: Examples) -> dict[str, Tensor]:
    """Return the true answers of a split, label first, each (n,)."""
    return {LABEL: split.labels, **split.factors}


def pixels(split: Examples, side: int, rows: list[int] | None = None) -> tuple[Tensor, Tensor | None]:
    """Return uint8 images (n, 3, side, side) and, when every record has one, uint8 masks (n, 1, side, side)."""
    chosen = range(len(split)) if rows is None else rows
    images, masks = [], []
    for row in chosen:
        images.append(unsigned(resized(split.image(row)[None], side)))
        mask = split.mask(row) if len(masks) == len(images) - 1 else None
        if mask is not None:
            masks.append(F.interpolate(mask[None].float(), size=(side, side), mode="nearest").to(torch.uint8))
    return torch.cat(images), torch.cat(masks) if len(masks) == len(images) else None


def at_side(images: Tensor, side: int) -> Tensor:
    """Return uint8 images (n, 3, side, side) of uint8 images (n, 3, H, W)."""
    return torch.cat([unsigned(resized(image, side)) for image in shown(images)])


def shown(images: Tensor) -> Iterator[Tensor]:
    """Yield uint8 images in chunks (b, 3, H, W), in [-1, 1]."""
    for start in range(0, len(images), CHUNK):
        yield images[start : start + CHUNK].float() / 127.5 - 1
