"""Domain features: the penultimate layer of a small classifier trained on the data set's own training images.

The first reading of the paper's HFD, KFD and BFD: a Fréchet distance whose network knows HAM10000, Kvasir-SEG or BUSI
(the second is ``highfreq``). It is never the network that judges factors: other seed, other weights.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anastyle import FEATURES, Feature, MissingError
from anastyle.evaluation.classifier import Classifier
from anastyle.evaluation.judge import Examples, answers_of, pixels, questions

AREA, PLACE, BRIGHTNESS = "mask_area", "mask_place", "brightness"
OFFSET = 7_919  # from the seed of a study to the seed of this network, so that it is not the judge's


@FEATURES.register
class Domain(Feature):
    """Features (B, width), normalised to unit variance on the training images; ``fit`` or ``load`` comes first."""

    @dataclass
    class Config(Feature.Config):
        """The network and its short training."""

        width: int = 64
        """F. Keep it well below the number of images: a covariance has F (F + 1) / 2 entries."""
        steps: int = 600
        batch_size: int = 64
        lr: float = 5e-3
        max_side: int = 128
        """Larger images are resized to this, antialiased."""
        path: str = ""
        """A network that a study trained, its domain.safetensors; then nothing is trained."""

    def __init__(self, config: Config, *, classes: int = 0) -> None:
        super().__init__(config)
        self.classes = classes
        self.model = Classifier.load(Path(config.path)) if config.path else None

    def fit(self, split: Examples, *, seed: int = 0, device: str | torch.device = "cpu") -> None:
        """Train on the training split: its label, its factors, or coarse facts of its masks where there are neither."""
        config = self.config
        if config.path:
            return
        side = min(config.max_side, split.image(0).shape[-1])
        images, masks = pixels(split, side)
        targets, heads = answers_of(split), questions(split)
        if "label" in heads:
            heads["label"] = max(self.classes, heads["label"])
        if not heads and masks is not None:
            targets = mask_targets(masks)
            heads = {AREA: 4, PLACE: 9}
        if not heads:  # one class, no factors, no masks
            heads, targets = {BRIGHTNESS: 4}, {BRIGHTNESS: brightness_quartile(images)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + OFFSET)
            self.model = Classifier(heads, width=config.width, side=side).to(device)
        self.model.teach(
            images, targets, masks, steps=config.steps, seed=seed + OFFSET, batch_size=config.batch_size, lr=config.lr
        )

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Return features (B, width) of images (B, 3, H, W) in [-1, 1]."""
        return self.trained().look(image).features

    def trained(self) -> Classifier:
        """Return the network, or say that there is none yet."""
        if self.model is None:
            raise MissingError(
                "domain: this network is not trained. A study trains one on its own training images; name the file:\n"
                "  domain.path=STUDY/store/instruments/.../domain.safetensors. From Python, call fit or load first."
            )
        return self.model

    def fingerprint(self) -> str:
        """Name the network by its weights."""
        return f"domain-{self.trained().fingerprint()}"

    def save(self, path: Path) -> None:
        """Write the network as one safetensors file."""
        self.trained().save(path)

    def load(self, path: Path) -> "Domain":
        """Read what ``save`` wrote; see ``Classifier.load``."""
        self.model = Classifier.load(path)
        return self


def mask_targets(masks: Tensor) -> dict[str, Tensor]:
    """Return the quartile of each mask's area and the place of its centroid in a 3 x 3 grid; -1 for empty masks."""
    mask = masks[:, 0].float()  # (n, s, s)
    side = mask.shape[-1]
    area = mask.sum(dim=(1, 2))
    edges = torch.quantile(area, torch.tensor([0.25, 0.5, 0.75]))
    axis = (torch.arange(side) + 0.5) / side
    y, x = ((mask.sum(dim=dim) * axis).sum(dim=1) / area.clamp(min=1) for dim in (2, 1))
    place = (y * 3).long().clamp(0, 2) * 3 + (x * 3).long().clamp(0, 2)
    empty = area == 0
    return {AREA: torch.bucketize(area, edges).masked_fill(empty, -1), PLACE: place.masked_fill(empty, -1)}


def brightness_quartile(images: Tensor) -> Tensor:
    """Return the quartile of each image's mean brightness, (n,): the last thing left to learn."""
    mean = images.float().mean(dim=(1, 2, 3))
    return torch.bucketize(mean, torch.quantile(mean, torch.tensor([0.25, 0.5, 0.75])))
