"""A finished run's parts as one chain: words to factors, to conditions, to an image."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from anastyle.devices import to_device
from anastyle.errors import ConfigError
from anastyle.interfaces import (
    Aligner,
    Backbone,
    Condition,
    Embedder,
    FactorDims,
    Factors,
    Fuser,
    Guide,
    Keep,
    Reading,
    Sample,
)
from anastyle.painting.prompts import Prompt
from anastyle.sampling import by_factor, classifier_free, conditions, sample


class Guidance(NamedTuple):
    """One weight for the whole condition, or one for each factor; two alike do what one does, where factors add."""

    scale: float = 3.0
    anatomy: float | None = None
    style: float | None = None

    @property
    def apart(self) -> bool:
        """Whether a factor has a weight of its own."""
        return self.anatomy is not None or self.style is not None

    def guide(self, asked: dict[str, Condition]) -> Guide:
        """Return the guide over these conditions; a factor without a weight of its own takes the common one."""
        if not self.apart:
            return classifier_free(asked, self.scale)
        anatomy, style = (self.scale if own is None else own for own in (self.anatomy, self.style))
        return by_factor(asked, anatomy, style)


class Reader(nn.Module):
    """Embedder, aligner and fuser: words to conditions."""

    def __init__(self, embedder: Embedder, aligner: Aligner, fuser: Fuser) -> None:
        super().__init__()
        self.embedder, self.aligner, self.fuser = embedder, aligner, fuser

    def read(self, captions: list[str], device: torch.device) -> Reading:
        """Return the reading of B captions."""
        return self.aligner(to_device(self.embedder.embed(captions), device))

    @torch.no_grad()
    def conditions(self, prompts: Sequence[Prompt], device: torch.device) -> dict[str, Condition]:
        """Return the conditions of B prompts with both factors, with each alone, and with neither.

        Of a prompt given by factor, anatomy is read off its anatomy words and style off its style words; a factor it
        has no words for gives way to its learned null. Where a fuser takes words and no factors, the fields are read
        as one caption.
        """
        reading = self.read([prompt.text for prompt in prompts], device)
        shown = None
        if any(prompt.parted for prompt in prompts) and reading.factors is not None:
            anatomy, style = (
                self.read([getattr(prompt, name) or prompt.text for prompt in prompts], device).factors
                for name in Factors._fields
            )
            assert anatomy is not None
            assert style is not None
            reading = reading._replace(factors=Factors(anatomy.anatomy, style.style))
            shown = Keep(*(_given(prompts, name, device) for name in Factors._fields))
        return conditions(self.fuser, reading, len(prompts), device, shown)


def _given(prompts: Sequence[Prompt], factor: str, device: torch.device) -> Tensor:
    return torch.tensor([not p.parted or bool(getattr(p, factor)) for p in prompts], device=device)


def seeded_noise(shape: tuple[int, ...], seeds: Sequence[int]) -> Tensor:
    """Return standard normal noise (B, *shape), float32 on the CPU: of each seed its own, whatever its neighbours."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def denoise(
    reader: Reader,
    backbone: Any,
    prompts: Sequence[Prompt],
    noise: Tensor,
    *,
    steps: int,
    guidance: Guidance,
    bf16: bool = False,
) -> Tensor:
    """Return the latents (B, C, h, w) of B prompts, on the device of ``noise``; ``bf16`` computes under autocast."""
    if guidance.apart and "factors" not in reader.fuser.needs:
        raise ConfigError("this run's fuser takes words, not factors: there is one guidance for the whole of them.")
    device = noise.device
    asked = reader.conditions(prompts, device)
    with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
        return sample(backbone, guidance.guide(asked), noise, steps=steps)


@dataclass
class Chain:
    """A finished run's parts, ready to paint, and what their sections and settings say."""

    sections: dict[str, dict[str, Any]]
    """Part -> its name and all its options."""
    dims: FactorDims | None
    reader: Reader
    backbone: Backbone
    image_size: int
    steps: int
    """Sampling steps and guidance of the run itself: what sampling takes by default."""
    guidance: float

    def to(self, device: torch.device) -> "Chain":
        """Move every part, the backbone's autoencoder too."""
        self.reader.to(device).eval()
        self.backbone.to(device).eval()
        getattr(self.backbone, "autoencoder", self.backbone).to(device).eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return next(self.backbone.parameters()).device

    @torch.no_grad()
    def paint(
        self,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: Guidance | None = None,
        bf16: bool = False,
    ) -> Sample:
        """Return the images of B prompts from the noise of B seeds.

        An image depends on its own prompt and seed; its neighbours change it by no more than the rounding of the
        arithmetic (in float32 on a CPU less than 1e-4 of [-1, 1], hence at most one of 255 grey levels).
        """
        noise = seeded_noise(self.backbone.noise_shape(), seeds).to(self.device)
        latent = denoise(
            self.reader, self.backbone, prompts, noise,
            steps=steps or self.steps, guidance=guidance or Guidance(self.guidance), bf16=bf16,
        )  # fmt: skip
        return self.backbone.decode(latent)
