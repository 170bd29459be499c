"""One resize: the tensors' and Pillow's agree, and TensorFlow's old one is what it was."""

import numpy as np
import pytest
import torch
from PIL import Image

from anastyle.data.images import resize
from anastyle.evaluation import classifier, judge, resizing
from anastyle.evaluation.resizing import resized

SIDES = [16, 37, 48, 64, 100, 299]


def picture(side: int = 48) -> np.ndarray:
    """Return a smooth picture with an edge and some grain, uint8 (side, side, 3)."""
    y, x = np.mgrid[:side, :side] / side
    channels = [120 + 60 * np.sin(9 * x + c) * np.cos(7 * y) + 40 * (x + y > 1) for c in range(3)]
    grain = np.random.default_rng(0).normal(0, 6, (side, side, 3))
    return np.clip(np.stack(channels, axis=-1) + grain, 0, 255).astype(np.uint8)


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 127.5 - 1


def as_pixels(image: torch.Tensor) -> np.ndarray:
    return ((image[0] + 1) * 127.5).numpy().transpose(1, 2, 0)


@pytest.mark.parametrize("side", SIDES)
def test_tensors_are_resized_as_pillow_resizes_floats_and_within_a_grey_level_of_its_bytes(side):
    image = picture()
    ours = as_pixels(resized(as_tensor(image), side))
    channels = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
    floats = np.stack([np.asarray(c.resize((side, side), Image.Resampling.BICUBIC)) for c in channels], axis=-1)

    assert np.abs(ours - floats.clip(0, 255)).max() < 0.01
    assert np.abs(ours - np.asarray(resize(Image.fromarray(image), side))).max() < 1.2


def test_every_instrument_has_this_resize():
    assert classifier.resized is judge.resized is resizing.resized


def test_an_image_of_the_right_size_is_left_alone():
    image = as_tensor(picture())

    for how in ("antialiased", "legacy_tf"):
        assert resized(image, 48, how) is image


def at(line: np.ndarray, side: int) -> np.ndarray:
    """TensorFlow 1 along a line, sample by sample."""
    found = []
    for k in range(side):
        place = k * len(line) / side
        low = int(place)
        high = min(low + 1, len(line) - 1)
        found.append(line[low] + (line[high] - line[low]) * (place - low))
    return np.asarray(found)


@pytest.mark.parametrize("side", SIDES)
def test_the_legacy_resize_is_tensorflows_sample_by_sample(side):
    image = picture()[..., 0] / 127.5 - 1
    expected = np.stack([at(line, side) for line in np.stack([at(line, side) for line in image]).T]).T

    ours = resized(torch.from_numpy(image)[None, None].float(), side, "legacy_tf")

    np.testing.assert_allclose(ours[0, 0].numpy(), expected, atol=1e-4)


def test_the_legacy_resize_drops_pixels_where_the_other_averages_them():
    stripes = torch.ones(1, 1, 8, 64)
    stripes[..., 1::2] = -1

    assert torch.equal(resized(stripes, 8, "legacy_tf"), torch.ones(1, 1, 8, 8))
    assert resized(stripes, 8).abs()[..., 1:-1].max() < 0.1
