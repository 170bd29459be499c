"""The segmenter: a small U-Net, trained on real images and masks, that says where a generated image shows a lesion.

An instrument like the judge: trained once per data set, with its own seed; its Dice on real held-out images says how
far it can be trusted.
"""

from pathlib import Path

import torch
from torch import Tensor

from anastyle.checkpoint import load_tensors, save_tensors, tensors_hash
from anastyle.errors import DataError
from anastyle.evaluation.judge import Examples
from anastyle.evaluation.utility.arms import Pool, pool
from anastyle.evaluation.utility.metrics import dice
from anastyle.evaluation.utility.networks import Recipe, UNet, answered, trained
from anastyle.evaluation.utility.segment import task
from anastyle.evaluation.utility.trainings import UtilitySettings

RECIPE = Recipe(width=12)


class Segmenter:
    """A trained U-Net at one size."""

    def __init__(self, network: UNet) -> None:
        self.network = network.eval()

    @classmethod
    def train(cls, split: Examples, seed: int, steps: int, *, side: int, device: str | torch.device) -> "Segmenter":
        """Train on a split of real images, all of which have masks.

        Raises:
            DataError: one has none.
        """
        examples = pool(split, side, range(len(split)))
        if examples.masks is None:
            raise DataError("a segmenter learns from masks, and some training images have none")
        recipe = Recipe(steps=steps, width=RECIPE.width)
        learned = task(UtilitySettings(recipe=recipe))
        network = trained(learned.network, examples, learned.loss, recipe, seed, device)
        assert isinstance(network, UNet)
        return cls(network)

    def __call__(self, images: Tensor) -> Tensor:
        """Return where lesions are, bool (n, 1, H, W), in uint8 images (n, 3, H, W)."""
        return answered(self.network, images, next(self.network.parameters()).device) > 0

    def save(self, path: Path) -> None:
        """Write the weights."""
        save_tensors(path, self.network.state_dict())

    @classmethod
    def load(cls, path: Path) -> "Segmenter":
        """Read what ``save`` wrote."""
        network = UNet(width=RECIPE.width)
        network.load_state_dict(load_tensors(path))
        return cls(network)

    def skill(self, held: Pool) -> tuple[float | None, int]:
        """Return its mean Dice on real held-out images that have a mask with something in it, and how many they are."""
        rows = [] if held.masks is None else torch.nonzero(held.masks.flatten(1).any(dim=1)).flatten()
        if held.masks is None or not len(rows):
            return None, 0
        return float(dice(self(held.images[rows]).numpy(), held.masks[rows].numpy()).mean()), len(rows)

    def fingerprint(self) -> str:
        """Name the segmenter by its weights."""
        return f"segmenter-{tensors_hash(self.network.state_dict())[:8]}"
