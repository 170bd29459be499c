"""What becomes of pixels: one policy, one resize."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anastyle.data.images import ImageError, open_image, open_mask, pixels_of, png, resize, resize_mask, shrink, signed

GRADIENT = np.arange(48, dtype=np.uint8).reshape(4, 12) * 5


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def handmade_png(width: int, height: int, depth: int, colour: int, raw: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def test_grey_becomes_rgb_with_the_same_values() -> None:
    opened = open_image(encoded(Image.fromarray(GRADIENT)))

    assert opened.image.mode == "RGB"
    assert np.array_equal(np.asarray(opened.image)[..., 2], GRADIENT)


def test_palette_becomes_its_colours() -> None:
    colours = Image.new("RGB", (4, 4), (200, 10, 30))

    opened = open_image(encoded(colours.convert("P", palette=Image.Palette.ADAPTIVE)))

    assert opened.image.getpixel((0, 0)) == (200, 10, 30)


def test_cmyk_is_converted_and_counted() -> None:
    opened = open_image(encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"))

    assert opened.converted == "CMYK to RGB"
    assert opened.image.getpixel((0, 0)) == (255, 0, 0)


def test_opaque_alpha_is_taken_off() -> None:
    opened = open_image(encoded(Image.new("RGBA", (4, 4), (9, 8, 7, 255))))

    assert opened.image.getpixel((1, 1)) == (9, 8, 7)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (encoded(Image.new("RGBA", (4, 4), (9, 8, 7, 254))), "transparent"),
        (encoded(Image.new("LA", (4, 4), (9, 0))), "transparent"),
        (encoded(Image.new("I;16", (4, 4), 4000)), "16-bit.*scale it to 8 bits"),
        (handmade_png(2, 2, 16, 2, (b"\0" + b"\x12\x34" * 6) * 2), "16-bit.*scale it to 8 bits"),
        (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "float.*scale it to 8 bits"),
        (handmade_png(10_000, 10_000, 1, 0, b"\0" * 100), "over 64 megapixels"),
        (handmade_png(14_000, 14_000, 1, 0, b"\0" * 100), "over 64 megapixels"),
        (b"\0" * 128 + b"DICM" + b"\0" * 64, r"DICOM.*anastyle\[dicom\]"),
        (b"no image at all", "not a PNG"),
        (b"", "not a PNG"),
        (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:700], "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a PNG"),
    ],
)
def test_what_would_lose_something_is_refused_with_the_way_out(content: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        open_image(content, "lesion.png")

    assert str(caught.value).startswith("lesion.png: ")
    assert caught.value.exit_code == 2


def test_dicom_and_nifti_are_known_by_name(tmp_path: Path) -> None:
    for name in ("scan.dcm", "brain.nii.gz"):
        (tmp_path / name).write_bytes(b"anything")
        with pytest.raises(ImageError, match="anastyle\\[dicom\\]"):
            open_image(tmp_path / name)


def test_an_animation_is_refused() -> None:
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 200)]
    content = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])

    with pytest.raises(ImageError, match="several frames"):
        open_image(content)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_and_mask_are_turned_together(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((8, 6), np.uint8)
    pixels[1, 2] = 255
    image = encoded(Image.fromarray(pixels), "PNG", exif=exif)

    opened = open_image(image)
    mask = open_mask(encoded(Image.fromarray(pixels)), opened)

    assert opened.image.size == ((6, 8) if orientation < 5 else (8, 6))
    assert np.array_equal(np.asarray(mask), np.asarray(opened.image)[..., 0])
    turned_here = np.argwhere(np.asarray(mask))[0].tolist()
    assert (turned_here == [1, 2]) == (orientation == 1)


def test_a_mask_drawn_on_the_upright_image_is_left_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = open_image(encoded(Image.new("L", (6, 8)), "PNG", exif=exif))
    upright = np.zeros((6, 8), np.uint8)
    upright[0, 1] = 255

    assert np.array_equal(np.asarray(open_mask(encoded(Image.fromarray(upright)), opened)), upright)


@pytest.mark.parametrize("foreground", [1, 128, 255])
def test_a_mask_of_two_values_is_binary(foreground: int) -> None:
    values = np.zeros((4, 4), np.uint8)
    values[0] = foreground
    opened = open_image(encoded(Image.new("RGB", (4, 4))))

    mask = np.asarray(open_mask(encoded(Image.fromarray(values)), opened))

    assert np.array_equal(mask, (values > 0) * 255)


def test_a_jpeg_mask_is_cleaned() -> None:
    disc = (np.hypot(*np.mgrid[-32:32, -32:32]) < 20).astype(np.uint8) * 255
    opened = open_image(encoded(Image.new("RGB", (64, 64))))

    mask = np.asarray(open_mask(encoded(Image.fromarray(disc), "JPEG", quality=95), opened))

    assert set(np.unique(mask)) == {0, 255}
    assert (mask != disc).mean() < 0.01


@pytest.mark.parametrize(
    ("mask", "words"),
    [(Image.fromarray(GRADIENT), "not binary"), (Image.new("L", (5, 4)), "5x4, not 12x4")],
)
def test_a_mask_that_cannot_be_one_is_refused(mask: Image.Image, words: str) -> None:
    opened = open_image(encoded(Image.fromarray(GRADIENT)))

    with pytest.raises(ImageError, match=words):
        open_mask(encoded(mask), opened)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (33, 20), (20, 20), (7, 9)])
def test_resize_gives_the_centre_square(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    image.putpixel((size[0] // 2, size[1] // 2), (255, 255, 255))

    small = np.asarray(resize(image, 10))[..., 0]

    assert small.shape == (10, 10)
    assert np.abs(np.argwhere(small == small.max()).mean(axis=0) - 4.5).max() <= 1.5


def test_resize_keeps_an_image_that_fits_and_antialiases_one_that_does_not() -> None:
    stripes = Image.fromarray(np.tile(np.uint8([0, 255]), (64, 32))).convert("RGB")

    assert resize(stripes, 64) is stripes
    assert np.abs(np.asarray(resize(stripes, 16)).astype(int)[:, 2:-2] - 127).max() <= 2


def test_masks_take_the_geometry_of_images_and_stay_binary() -> None:
    square = Image.new("L", (60, 40))
    square.paste(255, (20, 10, 40, 30))

    mask = np.asarray(resize_mask(square, 20))
    image = np.asarray(resize(square.convert("RGB"), 20))[..., 0]

    assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(mask, (image > 127) * 255)


def test_shrink_limits_the_longest_side() -> None:
    image = Image.new("RGB", (300, 100))

    assert shrink(image, 150).size == (150, 50)
    assert shrink(image, 0) is image
    assert shrink(image, 300) is image


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_png_is_lossless(mode: str) -> None:
    image = Image.effect_noise((16, 16), 80).convert(mode)

    again = open_image(png(image)).image

    assert np.array_equal(np.asarray(again), np.asarray(image.convert("RGB")))


def test_signed_spans_minus_one_to_one() -> None:
    pixels = pixels_of(Image.fromarray(np.uint8([[0, 255], [51, 204]])))

    assert pixels.shape == (1, 2, 2)
    torch.testing.assert_close(signed(pixels)[0], torch.tensor([[-1.0, 1.0], [-0.6, 0.6]]))
