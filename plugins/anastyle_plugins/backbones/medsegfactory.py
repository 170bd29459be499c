"""MedSegFactory (Mao et al. 2025): an image and its mask, painted together by two streams that look at each other.

Both streams run through one U-Net of Stable Diffusion as the two halves of a batch, and behind each attention block
either attends to the other (joint cross-attention). What tells them apart is learned and added to the embedding of the
timestep, which every residual block hears; the authors' prompts say "image" or "label", a word among many. They
released inference alone: how it is trained here, from masks encoded as images, is ours.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anastyle import BACKBONES, Autoencoder, Batch, Condition, ConfigError, Sample
from anastyle_plugins.backbones._unet import UNet
from anastyle_plugins.backbones.sd15 import HUB, SD15


@BACKBONES.register
class MedSegFactory(UNet):
    """Latents are the image's channels, then the mask's."""

    @dataclass
    class Config(UNet.Config):
        """Which checkpoint of Stable Diffusion 1.5, or how large."""

        path: str | None = HUB

    version = 2  # the streams were told apart by a token
    architectures = SD15.architectures
    encodes = ("image", "mask")

    def __init__(self, config: Config, *, autoencoder: Autoencoder, image_size: int) -> None:
        super().__init__(config, autoencoder=autoencoder, image_size=image_size)
        self._adapters = super().adapter_sizes()  # joint attention has none: it is trained whole
        join(self.unet)
        self.unet.class_embedding = stream_embedding(self.unet.time_embedding.linear_2.out_features)
        self.exports = ()  # no other program knows joint attention

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Return latent moments (B, 4C, h, w): means of image and mask, then their log variances."""
        assert batch.image is not None
        assert batch.mask is not None
        drawn = (2 * batch.mask - 1).expand_as(batch.image)
        moments = [self.autoencoder.encode(picture).chunk(2, dim=1) for picture in (batch.image, drawn)]
        return torch.cat([*(mean for mean, _ in moments), *(logvar for _, logvar in moments)], dim=1)

    def ask(self, network: Any, latent: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return what the U-Net predicts for both streams of latents (B, 2C, h, w)."""
        streams = torch.cat(latent.chunk(2, dim=1))  # (2B, C, h, w)
        both = Condition(condition.tokens.repeat(2, 1, 1), condition.mask.repeat(2, 1))
        predicted = super().ask(network, streams, timestep.repeat(2), both)
        return torch.cat(predicted.chunk(2), dim=1)

    def beside(self, condition: Condition, dtype: torch.dtype) -> dict[str, Any]:
        """Return which stream each half of the batch is."""
        count = len(condition.tokens) // 2
        return {"class_labels": torch.arange(2, device=condition.tokens.device).repeat_interleave(count)}

    def adapter_sizes(self) -> dict[str, int]:
        """Return what adapters of this rank count, by the set of their targets."""
        return self._adapters

    def noise_shape(self) -> tuple[int, ...]:
        """Return (2C, h, w)."""
        channels, *side = super().noise_shape()
        return (2 * channels, *side)

    def shown(self, latent: Tensor) -> Tensor:
        """Return the images of latents."""
        return self.autoencoder.decode(latent.chunk(2, dim=1)[0])

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Sample:
        """Return images, and masks in [0, 1]."""
        drawn = self.autoencoder.decode(latent.chunk(2, dim=1)[1])
        return Sample(self.shown(latent), ((drawn.mean(dim=1, keepdim=True) + 1) / 2).clamp(0, 1))


def stream_embedding(width: int) -> nn.Embedding:
    """Return what is added for each stream: nothing yet for the image's, which is what a checkpoint paints."""
    embedding = nn.Embedding(2, width)
    with torch.no_grad():
        embedding.weight[0] = 0
    return embedding


class Joint(nn.Module):
    """An attention block, and behind it attention to the other stream, which says nothing before it is trained."""

    def __init__(self, block: nn.Module, width: int, heads: int) -> None:
        super().__init__()
        from diffusers.models.attention_processor import Attention

        self.block = block
        self.norm = nn.LayerNorm(width)
        self.other = Attention(query_dim=width, heads=heads, dim_head=width // heads)
        out: Any = self.other.to_out[0]  # type: ignore[index]
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)

    def forward(self, hidden: Tensor, *args: Any, **options: Any) -> Tensor:
        """Return hidden states (2B, N, width) of both streams."""
        hidden = self.block(hidden, *args, **options)
        own = self.norm(hidden.to(self.norm.weight.dtype))
        one, other = own.chunk(2)
        return hidden + self.other(own, encoder_hidden_states=torch.cat([other, one])).to(hidden.dtype)


def join(unet: nn.Module) -> None:
    """Put joint attention behind every attention block of a U-Net.

    Raises:
        ConfigError: there is none.
    """
    from diffusers.models.attention import BasicTransformerBlock

    found = [(name, module) for name, module in unet.named_modules() if isinstance(module, BasicTransformerBlock)]
    if not found:
        raise ConfigError("backbone: this U-Net has no attention blocks, and the streams could not see each other.")
    for name, module in found:
        parent, _, child = name.rpartition(".")
        width, heads = module.dim, module.num_attention_heads
        setattr(unet.get_submodule(parent), child, Joint(module, width, heads))
