"""DICOM files and NIfTI volumes, slice by slice as 8-bit images: the extra ``dicom`` (pydicom, nibabel).

Intensities stay as they are stored (modality transform applied, floats) until a window is laid over them; the cast to
8 bits is the last step. The window is the person's, else the DICOM file's own, else percentiles. Nothing of a header
goes into an image or a name. NIfTI volumes are turned to the nearest anatomical axes, first right, then anterior,
then superior; a slice is shown with the higher of its two axes up and patient right on the right. Voxels are taken as
square.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anastyle.data.images import MAX_PIXELS, VOLUMES, ImageError, Opened
from anastyle.errors import ConfigError

Array = NDArray[Any]
MAX_VOXELS = 1 << 29
RESCALE = ("RescaleSlope", "RescaleIntercept")
VOI = ("WindowCenter", "WindowWidth", "VOILUTFunction")


class Window(NamedTuple):
    """What is shown black and white: intensities, or percentiles of the volume where there are none."""

    range: tuple[float, float] | None
    percentiles: tuple[float, float]

    @classmethod
    def of(cls, window: Sequence[float], percentiles: Sequence[float]) -> "Window":
        """Return a window from options.

        Raises:
            ConfigError: not two rising numbers.
        """
        for name, pair in (("window", window), ("percentiles", percentiles)):
            if (pair or name == "percentiles") and not (len(pair) == 2 and pair[0] < pair[1]):
                raise ConfigError(f"data.{name}: write two rising numbers, [low, high]. Got {list(pair)}.")
        return cls((window[0], window[1]) if window else None, (percentiles[0], percentiles[1]))


def is_volume(path: Path) -> bool:
    """Tell a DICOM file or NIfTI volume from an image by its name; a file without a suffix by its first bytes."""
    if path.suffix or not path.is_file():
        return path.name.lower().endswith(VOLUMES)
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def stem_of(path: Path) -> str:
    """Return a file's name without its suffix, ``.nii.gz`` counted as one."""
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def slices(path: Path, name: str, every: int, axis: int) -> tuple[list[int], int]:
    """Return the chosen slices of a volume (0: the middle one, k: every k-th) and how many it has.

    Raises:
        ImageError: it cannot be read, or the extra is not installed.
    """
    count = _nifti(path, name).shape[axis] if _is_nifti(path) else int(_dicom(path, name).get("NumberOfFrames") or 1)
    return ([count // 2] if every == 0 else list(range(0, count, every))), count


def patient(path: Path, name: str) -> str:
    """Return who a DICOM file says it shows, to be compared and never stored."""
    return "" if _is_nifti(path) else str(_dicom(path, name).get("PatientID") or "")


def open_slice(path: Path, name: str, number: int, axis: int, window: Window) -> Opened:
    """Read one slice as 8-bit RGB.

    Raises:
        ImageError: it cannot be read, or the extra is not installed.
    """
    if _is_nifti(path):
        volume = _nifti(path, name)
        shown = _windowed(_upright(volume, number, axis), window.range or _span(volume, window))
        converted = "NIfTI slices windowed to 8 bits"
    else:
        shown, converted = _dicom_slice(_dicom(path, name), name, number, window)
    image = Image.fromarray(np.round(shown * 255).astype(np.uint8)).convert("RGB")
    return Opened(image, 1, image.size, converted)


def open_slice_mask(path: Path, name: str, number: int, axis: int, of: Opened) -> Image.Image:
    """Read a slice of a mask volume as L, 0 or 255; whatever is above zero is foreground.

    Raises:
        ImageError: it cannot be read, has no such slice, or is of another size than the image.
    """
    if _is_nifti(path):
        volume = _nifti(path, name)
        values = _upright(volume, number, axis) if number < volume.shape[axis] else np.zeros((0, 0), np.float32)
    else:
        values = _pixels(_dicom(path, name), name, number)
    height, width = values.shape[:2]
    if (width, height) != of.image.size:
        expected = "x".join(map(str, of.image.size))
        raise ImageError(name, f"a mask of another size than its image ({width}x{height}, not {expected})")
    return Image.fromarray((values > 0).astype(np.uint8) * 255)


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _extra(name: str, kind: str) -> ImageError:
    way = "install the extra 'dicom' (pip install \"anastyle[dicom]\"), or save its slices as 8-bit PNG"
    return ImageError(name, f"{kind}, whose reader is not installed; {way}")


def _dicom(path: Path, name: str) -> Any:
    return _parsed(_read_dicom, path, name, "DICOM file")


def _parsed(read: Callable[[Path, int], Any], path: Path, name: str, kind: str) -> Any:
    """Return what a reader makes of a file, read again only when it has changed."""
    try:
        return read(path, path.stat().st_mtime_ns)
    except ImportError:
        raise _extra(name, f"a {kind}") from None
    except ImageError as error:
        raise ImageError(name, error.reason) from None
    except FileNotFoundError:
        raise ImageError(name, "no such file") from None
    except Exception as error:  # a parser may raise anything on broken bytes
        raise ImageError(name, f"not a readable {kind}") from error


@lru_cache(maxsize=1)
def _read_dicom(path: Path, changed: int) -> Any:
    return import_module("pydicom").dcmread(path)


def _pixels(header: Any, name: str, number: int) -> NDArray[Any]:
    """Return a frame as stored, (H, W) or (H, W, 3)."""
    if int(header.get("Rows") or 0) * int(header.get("Columns") or 0) > MAX_PIXELS:
        raise ImageError(name, "over 64 megapixels; make it smaller first")
    try:
        return import_module("pydicom.pixels").pixel_array(header, index=number)
    except Exception as error:  # decoders raise anything, and ask for plugins
        reason = (str(error) or type(error).__name__).splitlines()[0][:80]
        raise ImageError(name, f"DICOM pixels that cannot be decoded ({reason})") from error


def _dicom_slice(header: Any, name: str, number: int, window: Window) -> tuple[Array, str]:
    """Return a frame in [0, 1], (H, W) or (H, W, 3), and what was done to it."""
    pixels = _pixels(header, name, number)
    kind = str(header.get("PhotometricInterpretation", ""))
    told = ", burned-in text declared" if str(header.get("BurnedInAnnotation", "")) == "YES" else ""
    if kind == "PALETTE COLOR":
        coloured = import_module("pydicom.pixels").apply_color_lut(pixels, header)
        return (coloured / np.iinfo(coloured.dtype).max).astype(np.float32), f"DICOM palette to RGB{told}"
    if pixels.ndim == 3:
        return (pixels / np.iinfo(pixels.dtype).max).astype(np.float32), f"DICOM colour frames{told}"
    shown = _grey(header, pixels, number, window)
    return (1 - shown if kind == "MONOCHROME1" else shown), f"DICOM frames windowed to 8 bits{told}"


def _grey(header: Any, pixels: NDArray[Any], number: int, window: Window) -> Array:
    """Apply the modality transform and a window (DICOM PS3.3, C.11.1 and C.11.2); returns (H, W) in [0, 1]."""
    transforms = import_module("pydicom.pixels")
    slope, intercept = (_of_frame(header, number, "PixelValueTransformationSequence", tag) for tag in RESCALE)
    if "ModalityLUTSequence" in header:
        values = np.asarray(transforms.apply_modality_lut(pixels, header), np.float32)
    else:
        values = pixels.astype(np.float32) * float(slope or 1) + float(intercept or 0)
    if window.range:
        return _windowed(values, window.range)
    if header.get("VOILUTSequence"):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        return _windowed(transforms.apply_voi(values.astype(pixels.dtype), header), (0, 2**bits - 1))
    centre, width, how = (_of_frame(header, number, "FrameVOILUTSequence", tag) for tag in VOI)
    if centre is None or width is None or float(width) < 1:
        return _windowed(values, _span(values, window))
    centre, width = float(centre), float(width)
    if how == "SIGMOID":
        return (1 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.float32)
    if how == "LINEAR_EXACT":
        return _windowed(values, (centre - width / 2, centre + width / 2))
    return _windowed(values, (centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2))


def _of_frame(header: Any, number: int, sequence: str, tag: str) -> Any:
    """Return a tag's first value: the frame's, else what all frames share, else the file's."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for group in [*frames[number : number + 1], *shared[:1]]:
        if group.get(sequence) and group[sequence][0].get(tag) is not None:
            return _first(group[sequence][0].get(tag))
    return _first(header.get(tag))


def _first(value: Any) -> Any:
    return value[0] if value is not None and not isinstance(value, str) and hasattr(value, "__len__") else value


def _nifti(path: Path, name: str) -> Array:
    return _parsed(_read_nifti, path, name, "NIfTI volume")


@lru_cache(maxsize=2)
def _read_nifti(path: Path, changed: int) -> Array:
    """Return a volume (R, A, S), what is not a finite number as the lowest."""
    nibabel = import_module("nibabel")
    stored = nibabel.load(path)
    shape = tuple(side for axis, side in enumerate(stored.shape) if axis < 3 or side > 1)
    if len(shape) != 3:
        raise ImageError("", f"a NIfTI file of {len(stored.shape)} axes; save one volume of three")
    if np.prod(shape, dtype=np.int64) > MAX_VOXELS or stored.get_data_dtype().kind not in "iuf":
        raise ImageError("", "a NIfTI volume that is too large, or not of single numbers")
    volume = np.asarray(nibabel.as_closest_canonical(stored).dataobj, np.float32).reshape(shape)
    known = np.isfinite(volume)
    lowest = volume[known].min() if known.any() else np.float32(0)
    return np.where(known, volume, lowest)


def _upright(volume: Array, number: int, axis: int) -> Array:
    """Return a slice with its second axis upwards, (H, W)."""
    return np.rot90(np.take(volume, number, axis))


def _span(values: Array, window: Window) -> tuple[float, float]:
    low, high = np.percentile(values, window.percentiles)
    return float(low), float(high)


def _windowed(values: Array, span: tuple[float, float]) -> Array:
    """Return intensities with the window's low end at 0 and its high end at 1, cut off beyond."""
    low, high = span
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
