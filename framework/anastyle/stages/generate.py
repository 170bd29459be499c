"""Captions of held-out images to new images: the whole chain, prompt to picture."""

import torch
from torch import Tensor

from anastyle.data.images import unsigned
from anastyle.devices import to_device
from anastyle.interfaces import Aligner, Backbone, Embedded, Fuser
from anastyle.sampling import classifier_free, conditions, sample
from anastyle.settings import GenerateSettings
from anastyle.streams import noise


@torch.no_grad()
def generate(
    aligner: Aligner,
    fuser: Fuser,
    backbone: Backbone,
    embedded: Embedded,
    keys: list[str],
    settings: GenerateSettings,
    *,
    seed: int,
    device: torch.device,
    stream: str = "generate",
    advance=lambda images: None,
) -> dict[str, Tensor]:
    """Return one of ``images`` per caption, uint8 (n, 3, H, W), and where the backbone paints them, of ``masks``.

    Masks are uint8 (n, 1, H, W) of 0 and 1.

    Arguments:
        stream: of the noise.

    The noise of an image depends on its key and the seed alone: the batch size does not change the picture beyond the
    rounding of its arithmetic, and every variant starts from the same noise.
    """
    for part in (aligner, fuser, backbone):
        part.to(device).eval()
    images, masks = [], []
    for start in range(0, len(keys), settings.batch_size):
        rows = slice(start, start + settings.batch_size)
        batch = to_device(Embedded(*(part[rows] for part in embedded)), device)
        asked = conditions(fuser, aligner(batch), len(batch.tokens), device)
        latent = noise(backbone.noise_shape(), seed, stream, keys[rows], 0).to(device)
        latent = sample(backbone, classifier_free(asked, settings.guidance), latent, steps=settings.steps)
        painted = backbone.decode(latent)
        images.append(unsigned(painted.image))
        if painted.mask is not None:
            masks.append((painted.mask >= 0.5).to(torch.uint8).cpu())
        advance(len(batch.tokens))
    return {"images": torch.cat(images), **({"masks": torch.cat(masks)} if masks else {})}
