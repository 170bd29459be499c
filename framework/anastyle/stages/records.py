"""What stages leave behind to be looked at: codes before and after alignment, factor maps of held-out images."""

import torch
from torch import Tensor

from anastyle.data.images import unsigned
from anastyle.data.split import Split
from anastyle.devices import to_device
from anastyle.interfaces import Encoder
from anastyle.parts import Parts


@torch.no_grad()
def align_codes(parts: Parts, encoder: str, count: int, device: torch.device) -> dict[str, Tensor]:
    """Return the visual and the textual code of held-out images, (n, D) each, and their classes (n,).

    ``encoder`` is the fingerprint of the trained visual encoder.
    """
    test = parts.test.subset(list(range(min(count, len(parts.test)))))
    parts.embed(test)
    parts.encode_factors(test, encoder, device)
    batch = test.batch(list(range(len(test))), ("embedded", "target", "label"))
    assert batch.target is not None
    assert batch.label is not None
    assert batch.embedded is not None
    aligner = parts.aligner.to(device).eval()
    read = aligner(to_device(batch.embedded, device)).factors
    assert read is not None
    goal = aligner.standardised(to_device(batch.target, device))
    visual = {f"visual_{name}": getattr(goal, name).flatten(1).cpu() for name in ("anatomy", "style")}
    textual = {f"text_{name}": getattr(read, name).flatten(1).cpu() for name in ("anatomy", "style")}
    return {**visual, **textual, "label": batch.label}


@torch.no_grad()
def factor_maps(encoder: Encoder, split: Split, device: torch.device, count: int = 12) -> dict[str, Tensor]:
    """Return held-out images, their anatomy maps as colours and what is rebuilt from them, uint8 (n, 3, H, W) each."""
    batch = split.batch(list(range(min(count, len(split)))), ("image",))
    assert batch.image is not None
    encoder.to(device).eval()
    shown = encoder.describe(batch.image.to(device))
    found = {"image": unsigned(batch.image)}
    if shown.maps is not None:
        found["maps"] = unsigned(colour_maps(shown.maps.cpu()))
    if shown.reconstruction is not None:
        found["reconstruction"] = unsigned(shown.reconstruction)
    return found


def colour_maps(maps: Tensor) -> Tensor:
    """Return one-hot maps (n, K, H, W) as an image (n, 3, H, W) in [-1, 1], a hue per map."""
    hue = torch.arange(maps.shape[1]) / maps.shape[1] * 2 * torch.pi
    palette = torch.stack([hue.cos(), (hue - 2.1).cos(), (hue + 2.1).cos()]) * 0.6  # (3, K)
    return torch.einsum("ck,nkhw->nchw", palette, maps.float())
