"""How an instrument brings images to the size it looks at: one resize, and the one that old papers used.

``antialiased`` is the resize of ``anastyle.data.images`` on tensors: within 0.01 grey levels of Pillow's bicubic on
floats. On 8-bit pixels Pillow rounds, and cuts off, between the two directions: within 1.2 grey levels on photographs,
more where black meets white. ``legacy_tf`` is the bilinear of TensorFlow 1 (``align_corners=False``), which takes every
k-th pixel when it makes an image smaller; Parmar et al. (2022) show what that does to a Fréchet distance. A number
measured with one does not compare with the other.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Resize = Literal["antialiased", "legacy_tf"]
WORDS: dict[str, str] = {"antialiased": "antialiased bicubic", "legacy_tf": "bilinear of TensorFlow 1"}


def resized(image: Tensor, side: int, how: Resize = "antialiased") -> Tensor:
    """Return images (B, C, H, W) in [-1, 1] as (B, C, side, side); an image of that size comes back as it is."""
    if image.shape[-2:] == (side, side):
        return image
    if how == "legacy_tf":
        return between(between(image, side, dim=3), side, dim=2)
    return F.interpolate(image, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def between(image: Tensor, side: int, *, dim: int) -> Tensor:
    """Return an image with ``side`` samples along a dimension, the k-th at k * old / side between two old pixels."""
    old = image.shape[dim]
    at = torch.arange(side, device=image.device) * torch.tensor(old / side)  # in float32, as the original has it
    low = at.long()
    first, second = image.index_select(dim, low), image.index_select(dim, (low + 1).clamp(max=old - 1))
    share = (at - low).to(image.dtype).reshape([-1 if axis == dim else 1 for axis in range(image.ndim)])
    return first + (second - first) * share
