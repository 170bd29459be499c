"""DINOv2 features: the class token of a vision transformer trained without labels (Oquab et al. 2023).

Stein et al. (2023) find Fréchet distances on it closer to what people see than on Inception; they take the large model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anastyle import FEATURES, ConfigError
from anastyle_plugins.features._pretrained import IMAGENET, Pretrained, load, quiet


@FEATURES.register
class DINOv2(Pretrained):
    """The class token after the last normalisation, (B, hidden size); 1024 of the large model."""

    @dataclass
    class Config(Pretrained.Config):
        """Which weights."""

        path: str = "facebook/dinov2-large"
        """A hub id or a local folder with config.json and model.safetensors."""
        side: int = 224
        """Images are brought to this, a multiple of the model's patch of 14 pixels."""

    name = "dinov2"
    colours = IMAGENET

    def __init__(self, config: Config, *, classes: int = 0) -> None:
        from transformers import Dinov2Model  # late: a long import

        super().__init__(config)
        self.side = config.side
        self.network = load(Dinov2Model, self.checkpoints(config)[0])
        patch = self.network.config.patch_size
        if config.side < patch or config.side % patch:
            raise ConfigError(f"feature.side={config.side}: must be a multiple of the model's patch, {patch} pixels.")

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Write a two-layer twin with random weights; return the options that name it."""
        from transformers import Dinov2Config, Dinov2Model

        config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
        with torch.random.fork_rng(), quiet():
            torch.manual_seed(0)
            Dinov2Model(config).save_pretrained(folder / "dinov2")
        return {"path": str(folder / "dinov2"), "side": 28, "batch_size": 2}

    def look(self, image: Tensor) -> Tensor:
        return self.network(pixel_values=image).pooler_output
