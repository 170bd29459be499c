"""SDNet: a discrete map of anatomy and a short variational code of style (Chartsias et al. 2019; VG-MedGen, Eq. 1).

    image --U-Net, Gumbel softmax--> maps (B, K, H, W), one-hot --> anatomy factor
    maps, image --convolutions-->    mu, logvar (B, S)          --> style factor
    maps, code --AdaIN decoder-->    image

At the paper's sizes (224 pixels) the parts count 35,058,952 + 902,512 + 41,986 + 102,467 = 36,105,917 parameters.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anastyle import ENCODERS, Batch, ConfigError, Encoder, Encoding, FactorDims, Factors, Losses
from anastyle_plugins.encoders import _outline, _surface
from anastyle_plugins.encoders._moments import MOMENTS, moments
from anastyle_plugins.encoders._outline import OUTLINE, outline
from anastyle_plugins.encoders._surface import SURFACE, surface


@ENCODERS.register
class SDNet(Encoder):
    """Splits an image into one-hot anatomy maps and a style code.

    Left out: the released code's perceptual term, weight 0.1, because it needs pretrained VGG weights.
    """

    version = 2
    looks = ("image", "mask")

    @dataclass
    class Config(Encoder.Config):
        """Sizes and choices, the paper's by default."""

        anatomy_maps: int = 8
        style_dim: int = 8
        width: int = 64
        """Channels of the U-Net's first level, doubled at each deeper one; also of the segmentation head."""
        depth: int = 4
        """Levels of the U-Net: the image's side must be divisible by scale * 2 ** depth."""
        style_widths: list[int] = field(default_factory=lambda: [16, 32, 64, 128])
        style_hidden: int = 32
        decoder_widths: list[int] = field(default_factory=lambda: [128, 64, 32])
        pool: Literal["occupancy", "grid", "moments", "outline"] = "occupancy"
        """How maps become numbers: the area of each (the paper), areas in grid x grid cells, place and shape of each;
        or ``outline``: place, shape, symmetry and edge of the lesion that the segmentation head finds (needs masks)."""
        grid: int = 4
        surface: bool = False
        """Add colour, texture and grain to the style, measured in the lesion and around it (it needs masks). A short
        code that an image is rebuilt from leaves them out."""
        groups: bool = False
        """One token for each group of numbers, padded with zeros, so that a loud group does not drown a quiet one: of
        anatomy place, outline, symmetry and edge; of style the code, the pattern inside, that outside and the colours.
        Needs ``pool: outline`` and ``surface``. The paper: one token for all."""
        temperature: float = 1.0
        adain: Literal["shared", "learned"] = "shared"
        """``shared`` (the paper): only mean and std of the style code reach the decoder, the same in every channel.
        ``learned``: a scale and a shift per channel, so that all numbers of the code can act."""
        scale: int = 1
        """Work at 1 / scale of the image's side; 2 computes a quarter and loses the finest texture. The paper: 1."""
        size: int | None = None
        """Work on images resized to this side, whatever ``data.image_size`` is. The paper: 224, beside 512."""
        faithful: bool = False
        """Draw Gumbel noise in eval mode too, as the released code does: factors then differ from call to call."""

    dims: FactorDims

    def __init__(self, config: Config, *, image_size: int) -> None:
        super().__init__(config)
        image_size = config.size or image_size
        check(config, image_size)
        maps = config.anatomy_maps
        self.anatomy = UNet(maps, config.width, config.depth)
        self.segmentor = nn.Sequential(double(maps, config.width), nn.Conv2d(config.width, 2, 1))
        self.style = StyleEncoder(maps + 3, config, image_size // config.scale)
        self.decoder = Decoder(maps, config)
        self.apply(xavier)
        widths = {"occupancy": maps, "grid": maps * config.grid**2, "moments": maps * MOMENTS, "outline": OUTLINE}
        anatomy, style = widths[config.pool], config.style_dim + config.surface * SURFACE
        self.parts = ((anatomy,), (style,))
        if config.groups:
            self.parts = (_outline.GROUPS, (config.style_dim, *_surface.GROUPS))
        self.dims = FactorDims(*((len(part), max(part)) for part in self.parts))

    @classmethod
    def tiny(cls, tmp_path: Path) -> dict[str, Any]:
        """Return the options of a twin small enough for tests."""
        return {"width": 4, "depth": 2, "style_widths": [4, 8], "style_hidden": 8, "decoder_widths": [8, 4]}

    def maps(self, image: Tensor) -> Tensor:
        """Return one-hot maps (B, K, h, w): drawn, with straight-through gradients, in training; the likeliest in eval.

        The released code draws in eval too (``faithful``); here a reading of an image is the same every time.
        """
        logits = self.anatomy(image)
        if self.training or self.config.faithful:
            return F.gumbel_softmax(logits, tau=self.config.temperature, hard=True, dim=1)
        best = logits.argmax(dim=1, keepdim=True)
        return torch.zeros_like(logits).scatter_(1, best, 1.0)

    def lesion(self, maps: Tensor, size: torch.Size) -> Tensor:
        """Return where the segmentation head sees the lesion in maps (B, K, h, w), 0 or 1, (B, 1, *size)."""
        seen = self.segmentor(maps).softmax(dim=1)[:, 1:].float()
        return (F.interpolate(seen, size, mode="bilinear") > 0.5).float()

    def factors(self, image: Tensor, maps: Tensor, code: Tensor, mask: Tensor | None = None) -> Factors:
        """Return the factors of images (B, 3, H, W) by their maps (B, K, h, w) and the mean of their code (B, S).

        Lesions are measured under their masks (B, 1, H, W), where these are given.
        """
        pool, style = self.config.pool, code
        lesion = maps
        if pool == "outline" or self.config.surface:
            lesion = self.lesion(maps, image.shape[-2:]) if mask is None else mask.float()
        if self.config.surface:
            style = torch.cat([code, surface(image.float(), lesion).to(code.dtype)], dim=1)
        if pool == "outline":
            anatomy = outline(image.float(), lesion).to(code.dtype)
        elif pool == "grid":
            anatomy = F.adaptive_avg_pool2d(maps, self.config.grid).flatten(1)
        else:
            anatomy = maps.mean(dim=(2, 3)) if pool == "occupancy" else moments(maps.float()).flatten(1)
        return Factors(*(grouped(factor, part) for factor, part in zip((anatomy, style), self.parts, strict=True)))

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Factors:
        """Return anatomy (B, N, D) and style (B, N, S), with the mean of the code, of images (B, 3, H, W)."""
        small = shrunk(image, self.config)
        maps = self.maps(small)
        return self.factors(image, maps, self.style(maps, small).mean, mask)

    def targets(self, batch: Batch) -> Factors:
        """Return the factors of a batch, its lesions measured under their true masks where it has them.

        Words tell of the lesion, not of what a segmentation head of a Dice near 0.9 makes of it.
        """
        assert batch.image is not None
        return self(batch.image, batch.mask)

    def losses(self, batch: Batch) -> Losses:
        """Reconstruction (L1), KL, Dice of the lesion over the whole batch, and the code's regression (L1).

        A batch without masks has a Dice term of zero, still tied to the segmentation head. The paper's weights are 1,
        0.01, 10 and 1.

        Raises:
            ConfigError: the batch is one image in training, too few for batch normalisation.
        """
        image = batch.image
        assert image is not None
        if self.training and len(image) == 1:
            raise ConfigError("stages.disentangle.batch_size: sdnet normalises over the batch. Set it to 2 or more.")
        if batch.mask is None and (self.config.pool == "outline" or self.config.surface):
            raise ConfigError(
                "encoder: pool=outline and surface=true measure a lesion, and this set has no masks to find it by. "
                "Set pool to moments and surface to false."
            )
        image = shrunk(image, self.config)
        mask = None if batch.mask is None else shrunk(batch.mask, self.config)
        maps = self.maps(image)
        code = self.style(maps, image)
        drawn = code.sample() if self.training else code.mean
        rebuilt = self.decoder(maps, drawn)
        again = self.style(maps, rebuilt).mean  # (B, S)
        return {
            "reconstruction": F.l1_loss(rebuilt, image),
            "kl": code.divergence().mean(),
            "dice": dice(self.segmentor(maps).softmax(dim=1)[:, 1:], mask),
            "z_regression": F.l1_loss(again, drawn.detach()),
        }

    def describe(self, image: Tensor) -> Encoding:
        """Return factors, maps (B, K, H, W) and the image rebuilt from the maps and the mean code."""
        size, small = image.shape[-2:], shrunk(image, self.config)
        maps = self.maps(small)
        mean = self.style(maps, small).mean
        rebuilt = F.interpolate(self.decoder(maps, mean), size, mode="bilinear")
        return Encoding(self.factors(image, maps, mean), F.interpolate(maps, size), rebuilt)


def grouped(factor: Tensor, parts: tuple[int, ...]) -> Tensor:
    """Return numbers (B, D) as a token for each part, (B, N, the largest part), padded with zeros."""
    width = max(parts)
    return torch.stack([F.pad(part, (0, width - part.shape[1])) for part in factor.split(parts, dim=1)], dim=1)


class Code(NamedTuple):
    """A normal distribution over style codes."""

    mean: Tensor  # (B, S)
    logvar: Tensor  # (B, S)

    def sample(self) -> Tensor:
        """Draw a code (B, S), with gradients to mean and variance."""
        return self.mean + torch.randn_like(self.mean) * (self.logvar / 2).exp()

    def divergence(self) -> Tensor:
        """Return the KL divergence from the standard normal, (B,)."""
        return -0.5 * (1 + self.logvar - self.mean**2 - self.logvar.exp()).sum(dim=1)


class UNet(nn.Module):
    """Images (B, 3, H, W) to map logits (B, K, H, W); a residual block at the bottom."""

    def __init__(self, maps: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        deepest = 2 * widths[-1]
        self.down = nn.ModuleList(double(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.residual = nn.Sequential(nn.ReLU(), *normed(widths[-1], deepest), nn.ReLU(), *normed(deepest, deepest))
        self.shortcut = nn.Sequential(nn.ReLU(), *normed(widths[-1], deepest, size=1))
        self.up = nn.ModuleList(nn.Sequential(*normed(2 * w, w)) for w in reversed(widths))
        self.merge = nn.ModuleList(double(2 * w, w) for w in reversed(widths))
        self.head = nn.Conv2d(width, maps, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        skips, hidden = [], image
        for down in self.down:
            skips.append(down(hidden))
            hidden = F.max_pool2d(skips[-1], 2)
        hidden = self.residual(hidden) + self.shortcut(hidden)
        for up, merge in zip(self.up, self.merge, strict=True):
            hidden = up(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
            hidden = merge(torch.cat([hidden, skips.pop()], dim=1))
        return self.head(hidden)


class StyleEncoder(nn.Module):
    """Maps and image, side by side, to a distribution over style codes."""

    def __init__(self, channels: int, config: SDNet.Config, image_size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in config.style_widths:
            layers += [*normed(channels, width, stride=2), nn.LeakyReLU(0.2)]
            channels, image_size = width, (image_size + 1) // 2
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Sequential(
            nn.Linear(channels * image_size**2, config.style_hidden),
            nn.BatchNorm1d(config.style_hidden),
            nn.LeakyReLU(0.03),
        )
        self.mean = nn.Linear(config.style_hidden, config.style_dim)
        self.logvar = nn.Linear(config.style_hidden, config.style_dim)

    def forward(self, maps: Tensor, image: Tensor) -> Code:
        hidden = self.hidden(self.convolutions(torch.cat([maps, image], dim=1)))
        return Code(self.mean(hidden), self.logvar(hidden))


class Decoder(nn.Module):
    """Paints maps (B, K, H, W) in the style of a code (B, S): images (B, 3, H, W) in [-1, 1]."""

    def __init__(self, maps: int, config: SDNet.Config) -> None:
        super().__init__()
        widths = [maps, *config.decoder_widths]
        self.norms = nn.ModuleList(AdaIN(width, config.style_dim, config.adain == "learned") for width in widths)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, [*config.decoder_widths, 3], strict=True)
        )

    def forward(self, maps: Tensor, code: Tensor) -> Tensor:
        hidden = maps
        for norm, layer in zip(self.norms, self.layers, strict=True):
            hidden = layer(norm(hidden, code))
            hidden = hidden.tanh() if layer is self.layers[-1] else hidden.relu()
        return hidden


class AdaIN(nn.Module):
    """Normalises each channel of an image, then scales and shifts it as the style code says.

    Learned, it deviates from the paper: shared, only two numbers of the code, its mean and std, reach the decoder.
    """

    def __init__(self, channels: int, style_dim: int, learned: bool) -> None:
        super().__init__()
        hidden = 4 * style_dim
        self.affine = (
            nn.Sequential(nn.Linear(style_dim, hidden), nn.ReLU(), nn.Linear(hidden, 2 * channels)) if learned else None
        )

    def forward(self, hidden: Tensor, code: Tensor) -> Tensor:
        if self.affine is None:
            shift, scale = code.mean(dim=1, keepdim=True), (code.var(dim=1, keepdim=True) + 1e-5).sqrt()  # (B, 1)
        else:
            shift, scale = self.affine(code).chunk(2, dim=1)  # (B, C)
            scale = 1 + scale
        return F.instance_norm(hidden, eps=1e-5) * scale[..., None, None] + shift[..., None, None]


def dice(probability: Tensor, mask: Tensor | None) -> Tensor:
    """Return 1 - Dice of the foreground (B, 1, H, W), summed over all images of the batch; smoothing 0.1."""
    if mask is None:
        return 0 * probability.sum()
    return 1 - (2 * (probability * mask).sum() + 0.1) / (probability.sum() + mask.sum() + 0.1)


def shrunk(image: Tensor, config: SDNet.Config) -> Tensor:
    """Return images (B, C, H, W) at the side that is worked at: means over areas, of masks too."""
    if config.size is not None and image.shape[-1] != config.size:
        image = F.interpolate(image, (config.size, config.size), mode="area")
    return F.avg_pool2d(image, config.scale) if config.scale > 1 else image


def normed(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> list[nn.Module]:
    """Return a convolution and its batch normalisation."""
    return [nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2), nn.BatchNorm2d(outputs)]


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Return two normalised convolutions, each with a ReLU."""
    return nn.Sequential(*normed(inputs, outputs), nn.ReLU(), *normed(outputs, outputs), nn.ReLU())


def xavier(module: nn.Module) -> None:
    """Draw the weights of a convolution or linear layer as the released code does."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_normal_(module.weight)


def check(config: SDNet.Config, image_size: int) -> None:
    """Refuse sizes that cannot be built, all at once."""
    problems, unit = [], config.scale * 2**config.depth
    if image_size % unit or image_size < unit:
        near = max(unit, round(image_size / unit) * unit)
        option = "data.image_size" if config.size is None else "encoder.size"
        problems.append(f"encoder.depth: {image_size} pixels are not divisible by scale * 2**depth = {unit}. "
                        f"Set {option} to {near}, or a smaller depth.")  # fmt: skip
    if config.adain == "shared" and config.style_dim < 2:
        problems.append("encoder.style_dim: shared AdaIN reads its std, so 2 or more. Or set encoder.adain to learned.")
    if config.pool == "grid" and not 1 <= config.grid <= image_size // config.scale:
        problems.append(f"encoder.grid: {config.grid} cells a side, must be from 1 to {image_size // config.scale}.")
    if config.groups and not (config.pool == "outline" and config.surface):
        problems.append("encoder.groups: are those of pool=outline and surface=true. Set both, or groups to false.")
    if problems:
        raise ConfigError("\n".join(problems))
