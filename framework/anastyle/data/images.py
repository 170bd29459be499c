"""The one image policy: which files are accepted, what becomes of their pixels, and how they are resized.

Accepted are 8-bit images; what would lose something in silence (16 bits, floats, transparency, DICOM) is refused with
the way out. Every resize in the project is the one below.
"""

import warnings
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageChops, ImageOps
from torch import Tensor

from anastyle.errors import DataError

MAX_PIXELS = 64_000_000
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # no format that runs another program
VOLUMES = (".dcm", ".dicom", ".nii", ".nii.gz")
ORIENTATION = 0x0112  # the EXIF tag
OPAQUE = 255
NEARLY = 32  # how far from black or white a compressed mask may stray
OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))  # lightness, red-green, yellow-blue
STRAYS = 0.02  # the share of its pixels that may stray further


class ImageError(DataError):
    """A file that cannot be taken as an image; ``reason`` leaves the file's name out."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


class Opened(NamedTuple):
    """An accepted image."""

    image: Image.Image  # RGB, upright
    orientation: int  # the EXIF orientation that was applied, 1 for none
    stored: tuple[int, int]  # width and height before it was
    converted: str  # a conversion worth counting ("CMYK to RGB"), or empty


def open_image(source: Path | bytes, name: str = "") -> Opened:
    """Read an image file, or its bytes, as upright 8-bit RGB.

    Raises:
        ImageError: the file is unreadable, over 64 megapixels, or of a kind that 8-bit RGB cannot hold faithfully.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    image = _load(source, name)
    orientation = image.getexif().get(ORIENTATION, 1)
    stored = image.size
    converted = "CMYK to RGB" if image.mode == "CMYK" else ""
    upright = _rgb(ImageOps.exif_transpose(image), name)
    return Opened(upright, orientation, stored, converted)


def open_mask(source: Path | bytes, of: Opened, name: str = "") -> Image.Image:
    """Read a mask as L, 0 or 255, in the same frame as its image.

    A mask without an orientation of its own, drawn on the image as stored, is turned as the image was.

    Raises:
        ImageError: the file is unreadable, of another size than the image, or not binary.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    mask = _load(source, name)
    if ORIENTATION in mask.getexif():
        mask = ImageOps.exif_transpose(mask)
    elif mask.size == of.stored:
        mask = _turned(mask, of.orientation)
    if mask.size != of.image.size:
        raise ImageError(
            name, f"a mask of another size than its image ({_size(mask.size)}, not {_size(of.image.size)})"
        )
    red, green, blue = _rgb(mask, name).split()
    values = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))  # (H, W): any colour is foreground
    return Image.fromarray(_binary(values, name).astype(np.uint8) * 255)


def resize(image: Image.Image, size: int) -> Image.Image:
    """Bring the shortest side to ``size`` pixels (bicubic, antialiased), then crop the centre square."""
    return _fit(image, size, Image.Resampling.BICUBIC)


def resize_mask(mask: Image.Image, size: int) -> Image.Image:
    """Resize with the geometry of :func:`resize` and nearest neighbour, so that a mask stays binary."""
    return _fit(mask, size, Image.Resampling.NEAREST)


def shrink(image: Image.Image, longest: int, *, mask: bool = False) -> Image.Image:
    """Bring the longest side down to ``longest`` pixels; smaller images and ``longest=0`` change nothing."""
    scale = longest / max(image.size)
    if longest == 0 or scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.NEAREST if mask else Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    """Return a lossless encoding, fast rather than small; a grey RGB image takes one channel."""
    buffer = BytesIO()
    if image.mode == "RGB":
        red, green, blue = (channel.tobytes() for channel in image.split())
        if red == green == blue:
            image = image.getchannel(0)
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def signed(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as floats in [-1, 1], the same shape."""
    return pixels.float().div_(127.5).sub_(1)


def unsigned(image: Tensor) -> Tensor:
    """Return floats in [-1, 1], what lies beyond cut off, as uint8 pixels on the CPU, the same shape."""
    return image.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu()


def pixels_of(image: Image.Image) -> Tensor:
    """Return the pixels of an RGB or L image, uint8 (C, H, W)."""
    array = np.array(image)  # a copy that may be written to
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def picture_of(pixels: Tensor) -> Image.Image:
    """Return pixels, uint8 (3, H, W), as an RGB image: the way back from ``pixels_of``."""
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy()))


def _load(source: Path | bytes, name: str) -> Image.Image:
    """Open and decode, the checks that cost nothing first."""
    if isinstance(source, Path) and source.name.lower().endswith(VOLUMES):
        raise ImageError(name, _volume(source.name))
    try:
        with _stream(source) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            if file.read(132)[128:] == b"DICM":
                raise ImageError(name, _volume("x.dcm"))
            file.seek(0)
            image = Image.open(file, formats=FORMATS)
            _check_header(image, name)
            image.load()
            return image
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(name, "no such file") from None
    except Image.DecompressionBombError:
        raise ImageError(name, "over 64 megapixels; make it smaller first") from None
    except Image.UnidentifiedImageError:
        raise ImageError(name, "not a PNG, JPEG, TIFF, BMP or WebP image") from None
    except Exception as error:  # a decoder may raise anything on broken bytes
        raise ImageError(name, f"unreadable, the file is damaged ({_first_words(error)})") from error


def _stream(source: Path | bytes) -> IO[bytes]:
    return BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _check_header(image: Image.Image, name: str) -> None:
    """Refuse by what the header says, before any pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(name, "over 64 megapixels; make it smaller first")
    if image.mode.startswith("I") or ";16" in str(getattr(image, "tile", "")):
        raise ImageError(name, "16-bit pixels; choose a window and scale it to 8 bits first")
    if image.mode == "F":
        raise ImageError(name, "float pixels; choose a range and scale it to 8 bits first")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ImageError(name, "several frames in one file; save each as an image of its own")


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """Return the image as RGB; transparency is taken off only where there is none to see."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < OPAQUE:
            raise ImageError(name, "transparent pixels; flatten it on the colour that is meant")
        return image.convert("RGBA").convert("RGB")
    if image.mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr"):
        raise ImageError(name, f"colours in '{image.mode}'; convert it to RGB first")
    return image.convert("RGB")


def _turned(mask: Image.Image, orientation: int) -> Image.Image:
    """Apply an image's EXIF orientation to a mask that has none."""
    exif = mask.getexif()
    exif[ORIENTATION] = orientation
    return ImageOps.exif_transpose(mask)


def _binary(values: np.ndarray, name: str) -> np.ndarray:
    """Return where the mask (H, W) has foreground, bool."""
    levels = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    if levels.size <= 2 and (levels.size == 1 or levels[0] == 0):
        return values > 0
    between = (values > NEARLY) & (values < OPAQUE - NEARLY)
    if between.mean() > STRAYS:
        raise ImageError(name, "a mask that is not binary; it should hold 0 and one other value")
    return values > 127


def _fit(image: Image.Image, size: int, how: Image.Resampling) -> Image.Image:
    if image.size == (size, size):
        return image
    shortest = min(image.size)
    width, height = (max(size, round(side * size / shortest)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), how).crop((left, top, left + size, top + size))


def _volume(name: str) -> str:
    kind = "a DICOM file" if name.lower().endswith((".dcm", ".dicom")) else "a NIfTI volume"
    return f"{kind}; `anastyle prepare folder` reads it with the extra anastyle[dicom], or save it as 8-bit PNG"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _first_words(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:80]
