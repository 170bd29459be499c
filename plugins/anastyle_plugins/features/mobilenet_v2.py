"""MobileNetV2 features (Sandler et al. 2018): a small ImageNet network, for a look at real images on a laptop.

A relative number: it orders images of one kind, and compares with no published distance.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from anastyle import FEATURES
from anastyle_plugins.features._pretrained import HALF, Pretrained, lively, load, quiet


@FEATURES.register
class MobileNetV2(Pretrained):
    """The mean of the last feature map, (B, 1280)."""

    @dataclass
    class Config(Pretrained.Config):
        """Which weights."""

        path: str = "google/mobilenet_v2_1.0_224"
        """A hub id or a local folder with config.json and model.safetensors, of the classifier or its backbone."""

    name = "mobilenet_v2"
    colours = (HALF, HALF)

    def __init__(self, config: Config, *, classes: int = 0) -> None:
        from transformers import MobileNetV2Model  # late: a long import

        super().__init__(config)
        self.network = load(MobileNetV2Model, self.checkpoints(config)[0])
        self.side = self.network.config.image_size

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Write a narrow twin with random weights, its classifier too; return the options that name it."""
        from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

        model = MobileNetV2ForImageClassification(MobileNetV2Config(image_size=32, depth_multiplier=0.25))
        with quiet():
            lively(model).save_pretrained(folder / "mobilenet_v2")
        return {"path": str(folder / "mobilenet_v2"), "batch_size": 2}

    def look(self, image: Tensor) -> Tensor:
        return self.network(pixel_values=image).pooler_output
