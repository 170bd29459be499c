"""Stable Diffusion 1.5 (Rombach et al. 2022): its U-Net by hub id or folder, tuned; or a small one from scratch."""

from dataclasses import dataclass

from anastyle import BACKBONES
from anastyle_plugins.backbones._unet import UNet

HUB = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@BACKBONES.register
class SD15(UNet):
    """Attends to words as they are; told nothing else."""

    @dataclass
    class Config(UNet.Config):
        """Which checkpoint, or how large."""

        path: str | None = HUB

    architectures = {HUB: {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}}  # facts part E
