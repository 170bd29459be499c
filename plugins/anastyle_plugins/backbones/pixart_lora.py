"""The paper's backbone: a pretrained PixArt transformer, by hub id or folder, tuned by LoRA."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anastyle import BACKBONES, Autoencoder
from anastyle.weights import Checkpoint
from anastyle_plugins.backbones._pixart import PixArt
from anastyle_plugins.pretrained import checkpoint, load

# what is built where no weights are wanted, on the meta device (facts part E)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "PixArt-alpha/PixArt-XL-2-512x512": {
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "cross_attention_dim": 1152,
        "sample_size": 64,
        "patch_size": 2,
        "caption_channels": 4096,
    }
}


@BACKBONES.register
class PixArtLoRA(PixArt):
    """Any PixArtTransformer2DModel, frozen but for its adapters."""

    @dataclass
    class Config(PixArt.Config):
        """Which checkpoint."""

        path: str = "PixArt-alpha/PixArt-XL-2-512x512"
        """A hub id, or a folder that holds the model or a pipeline with a ``transformer`` folder."""
        revision: str | None = None

    def __init__(self, config: Config, *, autoencoder: Autoencoder, image_size: int) -> None:
        super().__init__(config, autoencoder=autoencoder, image_size=image_size)
        self.take(self.fresh(), pretrained=True)

    def fresh(self) -> Any:
        """Return the checkpoint's transformer, without adapters."""
        return self.open(self.config)

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the transformer's weights."""
        return [checkpoint("backbone.path", config.path, "transformer", config.revision)]

    @classmethod
    def open(cls, config: Config) -> Any:
        """Return the transformer; on the meta device its architecture alone."""
        from diffusers import PixArtTransformer2DModel  # late: a check does without

        if torch.get_default_device().type == "meta" and config.path in ARCHITECTURES:
            return PixArtTransformer2DModel(**ARCHITECTURES[config.path])
        return load(PixArtTransformer2DModel, cls.checkpoints(config)[0], "transformer")

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Write a tiny checkpoint in the hub's layout and return the options that load it."""
        from diffusers import PixArtTransformer2DModel

        model = PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1,
            cross_attention_dim=16, sample_size=8, patch_size=2, caption_channels=12, use_additional_conditions=False,
        )  # fmt: skip
        model.save_pretrained(folder / "pixart" / "transformer", safe_serialization=True)
        return {"path": str(folder / "pixart"), "lora_rank": 2}
