"""The latent space: diffusers' AutoencoderKL, small and trained here, or loaded from a folder.

Latents leave this file scaled to zero mean and unit variance: the mean and scale are measured on the training images
when the autoencode stage ends, and stored with the weights.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anastyle import AUTOENCODERS, Autoencoder, Batch, ConfigError, Losses
from anastyle.checkpoint import tensors_hash
from anastyle.devices import no_autocast
from anastyle.weights import Checkpoint
from anastyle_plugins.pretrained import SHIPPED, checkpoint, load

# what is built where no weights are wanted, on the meta device (facts part E)
STABLE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "stabilityai/sd-vae-ft-ema": {**STABLE, "sample_size": 256},
    "stabilityai/sdxl-vae": {**STABLE, "sample_size": 1024, "scaling_factor": 0.13025},
}


@AUTOENCODERS.register
class KL(Autoencoder):
    """A convolutional variational autoencoder (Rombach et al. 2022) of any size."""

    @dataclass
    class Config(Autoencoder.Config):
        """Which weights, or how large."""

        path: str | None = None
        """A hub id, a diffusers folder, or ``compact``: the one that ships with Anastyle. None: trained here."""
        tune: bool = False
        """Go on training the weights of ``path`` in the autoencode stage, for images unlike those they know."""
        channels: int = 4
        widths: list[int] = field(default_factory=lambda: [16, 32, 64])
        layers: int = 1
        groups: int = 8

        def __post_init__(self) -> None:
            if self.tune and self.path is None:
                raise ConfigError(
                    "tune=true: needs weights to begin with. Name a path; without one all is trained here."
                )

    @classmethod
    def trains(cls, config: Any) -> bool:
        """Without a path, or to be tuned."""
        return config.path is None or config.tune

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        from diffusers import AutoencoderKL  # late: a check does without

        build: Any = AutoencoderKL
        self.model: Any  # an AutoencoderKL, whose annotations are too narrow for its own arguments
        if config.path is not None:
            known = ARCHITECTURES.get(config.path) if torch.get_default_device().type == "meta" else None
            self.model = build(**known) if known else load(AutoencoderKL, self.checkpoints(config)[0], "vae")
            self.requires_grad_(config.tune)
        else:
            levels = len(config.widths)
            self.model = build(
                block_out_channels=tuple(config.widths),
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                layers_per_block=config.layers,
                latent_channels=config.channels,
                norm_num_groups=config.groups,
                mid_block_add_attention=False,
                scaling_factor=1.0,
                shift_factor=0.0,
            )
        self.channels = self.model.config.latent_channels
        self.factor = 2 ** (len(self.model.config.block_out_channels) - 1)
        scale = torch.tensor(float(self.model.config.scaling_factor))
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", scale)
        self.register_buffer("shift", torch.tensor(float(self.model.config.shift_factor or 0.0)))

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Return the options of a tiny twin, for contract tests."""
        return {"widths": [4, 8, 8], "groups": 4}

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the weights that ``path`` points to; in a pipeline they are the ``vae``."""
        part = "autoencoder" if config.path == SHIPPED else "vae"
        return [checkpoint("autoencoder.path", config.path, part)] if config.path else []

    def encode(self, image: Tensor) -> Tensor:
        """Return scaled latent moments (B, 2 * channels, h, w); in float32, since half precision can overflow here."""
        with no_autocast(image.device):
            mean, logvar = self.model.encode(image.float()).latent_dist.parameters.chunk(2, dim=1)
        logvar = logvar.clamp(-30, 20)
        return torch.cat([(mean - self.shift) * self.scale, logvar + 2 * self.scale.log()], dim=1)

    def decode(self, latent: Tensor) -> Tensor:
        """Return images (B, 3, H, W); in float32."""
        with no_autocast(latent.device):
            return self.model.decode(latent.float() / self.scale + self.shift).sample

    def losses(self, batch: Batch) -> Losses:
        """Reconstruction (L1), its gradients (L1, keeps texture), and the KL term per latent number."""
        posterior = self.model.encode(batch.image).latent_dist
        rebuilt = self.model.decode(posterior.sample()).sample
        return {
            "reconstruction": F.l1_loss(rebuilt, batch.image),
            "gradient": sum(F.l1_loss(rebuilt.diff(dim=d), batch.image.diff(dim=d)) for d in (2, 3)),
            "kl": posterior.kl().mean() / posterior.mean[0].numel(),
        }

    @torch.no_grad()
    def calibrate(self, image: Tensor) -> None:
        """Measure mean and scale of the latents of these images (B, 3, H, W)."""
        mean = self.model.encode(image).latent_dist.mean
        self.shift.copy_(mean.mean())
        self.scale.copy_(1 / mean.std())
        self.sync()

    def fingerprint(self) -> str:
        """Return a hash of the weights."""
        return tensors_hash(self.state_dict())[:16]

    def sync(self) -> None:
        """Have the diffusers model say the scale and shift in use: loaded weights bring theirs as buffers."""
        self.model.register_to_config(scaling_factor=self.scale.item(), shift_factor=self.shift.item())

    def export(self, folder: Path) -> None:
        """Write a diffusers folder that ``AutoencoderKL.from_pretrained`` loads."""
        self.sync()
        self.model.save_pretrained(folder, safe_serialization=True)
