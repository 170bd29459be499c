"""What PixArt backbones share: the transformer's own way of being asked."""

from typing import Any

from torch import Tensor

from anastyle import Condition
from anastyle_plugins.backbones._latent import LatentDiffusion


class PixArt(LatentDiffusion):
    """A PixArt transformer (Chen et al. 2023) over the latents of an autoencoder."""

    part = "transformer"
    piped = True
    transformer: Any  # a PixArtTransformer2DModel

    def take(self, transformer: Any, *, pretrained: bool) -> None:
        """Take a transformer in."""
        self.adopt(transformer, width=transformer.config.caption_channels, pretrained=pretrained)

    def ask(self, network: Any, latent: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return what a PixArt transformer makes of noisy latents (B, C, h, w)."""
        return predict(network, latent, timestep, condition)


def predict(transformer: Any, latent: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
    """Return what a PixArt transformer makes of noisy latents (B, C, h, w): float32, without a learned variance."""
    dtype = transformer.scale_shift_table.dtype  # what the base computes in
    out = transformer(
        latent.to(dtype),
        encoder_hidden_states=condition.tokens.to(dtype),
        encoder_attention_mask=condition.mask.to(dtype),
        timestep=timestep,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]
    return out[:, : latent.shape[1]].float()
