"""A small PixArt: the paper's class at a size that trains on a laptop, from scratch or by LoRA on the shipped base."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anastyle import BACKBONES, Autoencoder
from anastyle.weights import Checkpoint
from anastyle_plugins.backbones._pixart import PixArt
from anastyle_plugins.pretrained import checkpoint, load


@BACKBONES.register
class CompactDiT(PixArt):
    """PixArtTransformer2DModel with few and narrow layers."""

    @dataclass
    class Config(PixArt.Config):
        """Which base, or how large."""

        path: str | None = "compact"
        """A PixArt folder to tune; ``compact``: the base that ships with Anastyle. None: from scratch."""
        layers: int = 6
        heads: int = 2
        head_dim: int = 64
        caption_channels: int = 192
        prediction: str = "v_prediction"
        schedule: str = "squaredcos_cap_v2"

    def __init__(self, config: Config, *, autoencoder: Autoencoder, image_size: int) -> None:
        super().__init__(config, autoencoder=autoencoder, image_size=image_size)
        if config.path is not None:
            transformer = self.fresh()
        else:
            from diffusers import PixArtTransformer2DModel

            transformer = PixArtTransformer2DModel(
                num_attention_heads=config.heads,
                attention_head_dim=config.head_dim,
                in_channels=autoencoder.channels,
                out_channels=autoencoder.channels,
                num_layers=config.layers,
                cross_attention_dim=config.heads * config.head_dim,
                sample_size=image_size // autoencoder.factor,
                patch_size=2,
                caption_channels=config.caption_channels,
                use_additional_conditions=False,
            )
        self.take(transformer, pretrained=config.path is not None)

    def fresh(self) -> Any:
        """Return the base, without adapters."""
        from diffusers import PixArtTransformer2DModel  # late: a check does without

        return load(PixArtTransformer2DModel, self.checkpoints(self.config)[0], "transformer")

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the weights that ``path`` points to."""
        return [checkpoint("backbone.path", config.path, "transformer")] if config.path else []

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Return the options of a tiny twin, for contract tests."""
        return {"path": None, "layers": 1, "heads": 2, "head_dim": 8, "caption_channels": 12}
