"""What stages leave behind to be looked at: codes before and after alignment, factor maps of held-out images."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from anastyle.data.split import Split
from anastyle.interfaces import Encoder
from anastyle.parts import Parts
from anastyle.stages.generate import to_uint8


@torch.no_grad()
def align_codes(parts: Parts, plan: dict[str, Any], count: int, device: torch.device) -> dict[str, Tensor]:
    """Return the visual and the textual code of held-out images, (n, D) each, and their classes (n,)."""
    test = parts.test.subset(list(range(min(count, len(parts.test)))))
    parts.embed(test)
    parts.encode_factors(test, plan["disentangle"].fingerprint, device)
    batch = test.batch(list(range(len(test))), ("embedded", "target", "label"))
    assert batch.target is not None
    assert batch.embedded is not None
    aligner = parts.aligner.to(device).eval()
    read = aligner(type(batch.embedded)(*(part.to(device) for part in batch.embedded))).factors
    assert read is not None
    goal = aligner.standardised(type(batch.target)(*(part.to(device) for part in batch.target)))
    visual = {f"visual_{name}": getattr(goal, name).flatten(1).cpu() for name in ("anatomy", "style")}
    textual = {f"text_{name}": getattr(read, name).flatten(1).cpu() for name in ("anatomy", "style")}
    return {**visual, **textual, "label": batch.label}


@torch.no_grad()
def factor_maps(encoder: Encoder, split: Split, device: torch.device, count: int = 6) -> Image.Image:
    """Return a sheet: one row per image with the image, its anatomy maps as colours, and its reconstruction."""
    batch = split.batch(list(range(min(count, len(split)))), ("image",))
    assert batch.image is not None
    encoder.to(device).eval()
    shown = encoder.describe(batch.image.to(device))
    columns = [batch.image]
    if shown.maps is not None:
        columns.append(colour_maps(shown.maps.cpu()))
    if shown.reconstruction is not None:
        columns.append(shown.reconstruction.cpu())
    rows = torch.cat(columns, dim=3)  # (n, 3, H, columns * W)
    return Image.fromarray(to_uint8(torch.cat(list(rows), dim=1)[None])[0].permute(1, 2, 0).numpy())


def colour_maps(maps: Tensor) -> Tensor:
    """Return one-hot maps (n, K, H, W) as an image (n, 3, H, W) in [-1, 1], a hue per map."""
    hue = torch.arange(maps.shape[1]) / maps.shape[1] * 2 * torch.pi
    palette = torch.stack([hue.cos(), (hue - 2.1).cos(), (hue + 2.1).cos()]) * 0.6  # (3, K)
    return torch.einsum("ck,nkhw->nchw", palette, maps.float())
