"""Stable Diffusion XL (Podell et al. 2023): its base U-Net by hub id or folder, tuned; or a small one from scratch."""

from dataclasses import dataclass
from typing import Any

import torch

from anastyle import BACKBONES, Autoencoder, Condition
from anastyle_plugins.backbones._unet import UNet

HUB = "stabilityai/stable-diffusion-xl-base-1.0"


@BACKBONES.register
class SDXL(UNet):
    """Attends to words, and is told their pooled embedding and the image's size beside the timestep."""

    @dataclass
    class Config(UNet.Config):
        """Which checkpoint, or how large."""

        path: str | None = HUB
        pooled_dim: int = 256
        """Numbers of the pooled embedding that a network from scratch is told."""
        size_dim: int = 32
        """Numbers that each of six sizes becomes, in a network from scratch."""

    needs_pooled = True
    architectures = {
        HUB: {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        }
    }

    def options(self) -> dict[str, Any]:
        """Return the options of a network from scratch."""
        config = self.config
        return {
            **super().options(),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": config.size_dim,
            "projection_class_embeddings_input_dim": config.pooled_dim + 6 * config.size_dim,
        }

    def __init__(self, config: Config, *, autoencoder: Autoencoder, image_size: int) -> None:
        super().__init__(config, autoencoder=autoencoder, image_size=image_size)
        sizes = self.unet.config
        self.pooled = sizes.projection_class_embeddings_input_dim - 6 * sizes.addition_time_embed_dim

    def beside(self, condition: Condition, dtype: torch.dtype) -> dict[str, Any]:
        """Return the pooled embedding (B, P), and original size, crop and target size (B, 6)."""
        assert condition.pooled is not None
        side = self.image_size
        sizes = torch.tensor([side, side, 0, 0, side, side], dtype=dtype, device=condition.tokens.device)
        sizes = sizes.expand(len(condition.tokens), 6)
        return {"added_cond_kwargs": {"text_embeds": condition.pooled.to(dtype), "time_ids": sizes}}

    @classmethod
    def small(cls) -> dict[str, Any]:
        """Return what else the tiny checkpoint needs."""
        return {
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 12 + 24,
        }
