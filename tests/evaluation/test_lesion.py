"""The closer look: it finds a lesion, and what it sees there does not depend on how the lesion lies."""

import pytest
import torch

from anastyle.evaluation.classifier import even, harmonics
from anastyle.evaluation.lesion import extent, placed, polar, sample, square, views


def blob(x: float, y: float, radius: float, *, spikes: int = 0, turn: float = 0.0, size: int = 64) -> torch.Tensor:
    """Return a mask (1, 1, size, size) of a disc, or of a star."""
    v, u = torch.meshgrid(*(2 * [(torch.arange(size) + 0.5) / size * 2 - 1]), indexing="ij")
    angle = torch.atan2(v - y, u - x)
    limit = radius * (1 + 0.4 * torch.cos(spikes * (angle - turn)) * (spikes > 0))
    return (torch.hypot(u - x, v - y) < limit).float()[None, None]


def spectrum(mask: torch.Tensor) -> torch.Tensor:
    """Return the harmonics of a mask's outline, (25,)."""
    centre, radius = extent(mask[:, 0])
    around = sample(mask, placed(polar(24, 96), centre, radius, None))
    return harmonics(around.mean(dim=2, keepdim=True))[0]


@pytest.mark.parametrize(("x", "y", "radius"), [(0.0, 0.0, 0.3), (-0.36, 0.36, 0.27), (0.3, -0.2, 0.5)])
def test_a_disc_is_found_where_it_lies_and_as_large_as_it_is(x, y, radius):
    centre, found = extent(blob(x, y, radius)[:, 0])

    assert centre[0].tolist() == pytest.approx([x, y], abs=0.02)
    assert float(found) == pytest.approx(radius, rel=0.03)


def test_a_place_without_any_lesion_is_still_a_place():
    centre, radius = extent(torch.zeros(1, 16, 16))

    assert centre.tolist() == [[0, 0]]
    assert float(radius) == pytest.approx(0.15)


def test_an_outline_is_read_whatever_its_direction_place_and_size():
    star = spectrum(blob(0, 0, 0.35, spikes=5))
    moved = [
        spectrum(blob(0, 0, 0.35, spikes=5, turn=0.4)),
        spectrum(blob(0.3, -0.2, 0.35, spikes=5)),
        spectrum(blob(0, 0, 0.5, spikes=5)),
    ]
    other = spectrum(blob(0, 0, 0.35, spikes=3))

    for same in moved:
        assert float((same - star).abs().max()) < 0.3 * float((other - star).abs().max())


def test_spikes_are_the_harmonic_of_their_number():
    for spikes in (3, 5):
        assert int(spectrum(blob(0, 0, 0.35, spikes=spikes))[1:].argmax()) + 1 == spikes


def test_views_turn_and_mirror_but_keep_size_within_a_tenth():
    view = views(200, torch.Generator().manual_seed(0), torch.device("cpu"))
    area = torch.linalg.det(view.turn)

    assert float(area.abs().sqrt().min()) >= 0.9 - 1e-5
    assert float(area.abs().sqrt().max()) <= 1.1 + 1e-5
    assert 60 < int((area < 0).sum()) < 140
    assert float(view.shift.abs().max()) <= 0.03


def test_a_patch_without_a_view_is_the_image_itself():
    image = torch.rand(2, 3, 16, 16)

    seen = sample(image, placed(square(16), torch.zeros(2, 2), torch.ones(2), None))

    assert torch.allclose(seen, image, atol=1e-5)


def test_a_surface_is_read_without_its_level_and_contrast():
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    focus = blob(0, 0, 0.6, size=24)

    plain, bright = even(image, focus), even(0.5 * image + 0.3, focus)

    assert float((plain - bright)[:, :3].abs().mean()) < 0.03 * float(plain[:, :3].abs().mean())
    assert plain[:, :3][:, :, 0, 0].tolist() == [[0, 0, 0]]
    assert torch.equal(plain[:, 3:], focus)
