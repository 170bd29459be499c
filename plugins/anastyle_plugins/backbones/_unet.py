"""What the U-Nets of Stable Diffusion share: where they come from, and how they are asked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from anastyle import Autoencoder, Condition, ConfigError
from anastyle.weights import Checkpoint
from anastyle_plugins.backbones._latent import LatentDiffusion
from anastyle_plugins.pretrained import checkpoint, load


class UNet(LatentDiffusion):
    """A UNet2DConditionModel over the latents of an autoencoder: pretrained and tuned, or small and from scratch."""

    @dataclass
    class Config(LatentDiffusion.Config):
        """Which checkpoint, or how large."""

        path: str | None = None
        """A hub id, or a folder that holds the model or a pipeline with a ``unet`` folder; None: from scratch."""
        revision: str | None = None
        widths: list[int] = field(default_factory=lambda: [64, 128, 192])
        """Channels of each level of a network from scratch; all but the first attend to words."""
        layers: int = 1
        """Residual blocks of each level."""
        head_dim: int = 32
        cross_dim: int = 192
        """Width of the words' tokens."""
        lora_targets: Literal["paper", "released"] = "paper"
        schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"

        def __post_init__(self) -> None:
            if self.path is None and (len(self.widths) < 2 or any(w % self.head_dim or w % 32 for w in self.widths)):
                raise ConfigError(
                    f"widths={self.widths}: name two or more, each a multiple of 32 and of head_dim={self.head_dim}."
                )

    part = "unet"
    unet: Any  # a UNet2DConditionModel
    architectures: ClassVar[dict[str, dict[str, Any]]]  # hub id -> its options, where no weights are wanted

    def __init__(self, config: Config, *, autoencoder: Autoencoder, image_size: int) -> None:
        super().__init__(config, autoencoder=autoencoder, image_size=image_size)
        unet = self.fresh()
        self.adopt(unet, width=unet.config.cross_attention_dim, pretrained=config.path is not None)

    def fresh(self) -> Any:
        """Return the checkpoint's U-Net, or a new one; on the meta device the architecture alone."""
        from diffusers import UNet2DConditionModel  # late: a check does without

        if self.config.path is None:
            return UNet2DConditionModel(**self.options())
        if torch.get_default_device().type == "meta" and self.config.path in self.architectures:
            return UNet2DConditionModel(**self.architectures[self.config.path])
        return load(UNet2DConditionModel, self.checkpoints(self.config)[0], self.part)

    def options(self) -> dict[str, Any]:
        """Return the options of a network from scratch."""
        config, levels = self.config, len(self.config.widths)
        return {
            "sample_size": self.image_size // self.autoencoder.factor,
            "in_channels": self.autoencoder.channels,
            "out_channels": self.autoencoder.channels,
            "block_out_channels": tuple(config.widths),
            "layers_per_block": config.layers,
            "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * (levels - 1)),
            "up_block_types": (*["CrossAttnUpBlock2D"] * (levels - 1), "UpBlock2D"),
            "attention_head_dim": tuple(width // config.head_dim for width in config.widths),  # diffusers: heads
            "cross_attention_dim": config.cross_dim,
        }

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the U-Net's weights, if it has any."""
        return [checkpoint("backbone.path", config.path, "unet", config.revision)] if config.path else []

    def ask(self, network: Any, latent: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return what a U-Net predicts for noisy latents (B, C, h, w), in float32."""
        dtype = network.conv_in.weight.dtype  # what the base computes in
        out = network(
            latent.to(dtype),
            timestep,
            encoder_hidden_states=condition.tokens.to(dtype),
            encoder_attention_mask=condition.mask,
            return_dict=False,
            **self.beside(condition, dtype),
        )[0]
        return out.float()

    def beside(self, condition: Condition, dtype: torch.dtype) -> dict[str, Any]:
        """Return what beside tokens the network is told."""
        return {}

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Write a tiny checkpoint in the hub's layout and return the options that load it."""
        from diffusers import UNet2DConditionModel

        heads: Any = (1, 2)
        model = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=heads, cross_attention_dim=12, norm_num_groups=4, **cls.small(),
        )  # fmt: skip
        model.save_pretrained(folder / cls.part / "unet", safe_serialization=True)
        return {"path": str(folder / cls.part), "lora_rank": 2}

    @classmethod
    def small(cls) -> dict[str, Any]:
        """Return what else the tiny checkpoint needs."""
        return {}
