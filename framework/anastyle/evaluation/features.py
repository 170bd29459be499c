"""What a feature network makes of images; with a cache folder, computed once for the same pixels."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from anastyle.data.cache import cached
from anastyle.errors import DataError
from anastyle.evaluation.distances import Array
from anastyle.evaluation.judge import shown
from anastyle.evaluation.resizing import WORDS, resized
from anastyle.interfaces import Feature

RESIZE = WORDS["antialiased"]  # how images are brought to a common side; a network's own resize is in its fingerprint


def features_of(network: Feature, images: Tensor, side: int | None = None, *, cache: Path | None = None) -> Array:
    """Return features (n, F) in float64 of uint8 images (n, 3, H, W), brought to ``side`` pixels first.

    Arguments:
        cache: a folder to look in first, and to keep them in; they are filed under a hash of the pixels, the network
            and the size, so that no entry is ever stale.

    Raises:
        DataError: a feature is not finite.
    """
    side = side or images.shape[-1]
    if cache is None:
        found = look(network, images, side)
    else:
        identity = {
            "what": "features",
            "pixels": pixels_hash(images),
            "side": side,
            "resize": RESIZE,
            "features": network.fingerprint(),
        }
        found = cached(cache, identity, lambda: {"features": look(network, images, side)})["features"]
    return found.double().numpy()


@torch.no_grad()
def look(network: Feature, images: Tensor, side: int) -> Tensor:
    """Return what the network makes of uint8 images (n, 3, H, W), (n, F) on the CPU."""
    network.eval()
    device = next((tensor.device for tensor in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    found = torch.cat([network(resized(image, side).to(device)).cpu() for image in shown(images)])
    if wrong := int((~found.isfinite()).any(dim=1).sum()):
        raise DataError(
            f"{network.fingerprint()}: the features of {wrong} of {len(images)} images are not finite numbers.\n"
            "  Its weights are damaged or belong to another network; a distance on them would mean nothing."
        )
    return found


def pixels_hash(*images: Tensor) -> str:
    """Return a hash of uint8 images (n, 3, H, W), sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for some in images:
        digest.update(str(tuple(some.shape)).encode() + some.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
