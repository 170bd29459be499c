"""What SDNet measures of a lesion beside its learned codes: outline and surface."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from anastyle_plugins.encoders._moments import moments
from anastyle_plugins.encoders._outline import HARMONICS, OUTLINE, PLACE, mirrored, outline, radii
from anastyle_plugins.encoders._surface import BLURS, NUMBERS, SURFACE, surface

FLAT = math.log(0.02)  # of a harmonic that is not there
ROUGH, SYMMETRY, INNER, OUTER, ACROSS = range(PLACE + HARMONICS, OUTLINE)


def plane(size: int = 64) -> tuple[Tensor, Tensor]:
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.meshgrid(axis, axis, indexing="xy")


def lesion(radius: Callable[[Tensor], Tensor] = torch.ones_like, *, size: int = 64, mean: float = 0.45) -> Tensor:
    """Return a lesion whose outline is ``radius`` of the angle, (1, 1, size, size)."""
    x, y = plane(size)
    return (torch.hypot(x, y) < mean * radius(torch.atan2(y, x))).float()[None, None]


def profile(shape: Tensor) -> Tensor:
    return radii(shape, moments(shape)[:, 0, 1:3])


def flat(size: int = 64) -> Tensor:
    return torch.zeros(1, 3, size, size)


def test_a_profile_is_the_radius():
    disc = profile(lesion(mean=0.5))
    assert disc.shape == (1, 64)
    assert disc.sub(0.5).abs().max() < 0.03


@pytest.mark.parametrize("order", [2, 3, 5, 8])
def test_a_harmonic_is_found_where_it_is_and_does_not_turn(order):
    def wavy(turn):
        return lesion(lambda angle: 1 + 0.3 * torch.cos(order * (angle - turn)))

    found = [outline(flat(), wavy(turn))[0, PLACE:ROUGH] for turn in (0.0, 0.4, 1.1)]
    for numbers in found:
        assert int(numbers.argmax()) == order - 1
        assert numbers[order - 1] == pytest.approx(math.log(0.32), abs=0.15)
    assert torch.stack(found).std(dim=0)[order - 1] < 0.1


def test_a_disc_is_even_and_its_own_mirror():
    numbers = outline(flat(), lesion())[0]
    assert numbers.shape == (OUTLINE,)
    assert numbers[PLACE:ROUGH].max() < FLAT + 0.7
    assert numbers[SYMMETRY] > 0.9


def test_one_bulge_is_no_mirror_image_of_two_different_ones():
    def bulges(*places):
        return lesion(lambda angle: 1 + sum(h * torch.exp(-(((angle - at) / 0.3) ** 2)) for at, h in places))

    profiles = [profile(bulges((0.5, 0.8))), profile(bulges((0.2, 0.9), (1.3, 0.4)))]
    even, uneven = (float(mirrored(p / p.mean() - 1)) for p in profiles)
    assert even > 0.95 > uneven + 0.1


def test_a_jagged_edge_is_rough_and_a_soft_one_not_sharp():
    x, y = plane()
    smooth, jagged = lesion(), lesion(lambda angle: 1 + 0.12 * torch.sin(17 * angle))
    assert outline(flat(), jagged)[0, ROUGH] > outline(flat(), smooth)[0, ROUGH] + 1
    edges = []
    for width in (0.02, 0.2):
        image = torch.sigmoid((0.45 - torch.hypot(x, y)) / width).expand(1, 3, -1, -1)
        edges.append(outline(image, smooth)[0, [INNER, OUTER, ACROSS]])
    sharp, soft = edges
    assert (sharp[:2] > soft[:2] + 1).all()
    assert sharp[2] > soft[2] + 0.5


def test_a_pattern_does_not_blur_an_edge():
    x, y = plane()
    disc = lesion()
    torch.manual_seed(0)
    grain = 0.1 * torch.randn(3, 64, 64)
    edges = {}
    for width in (0.02, 0.2):
        plain = torch.sigmoid((0.45 - torch.hypot(x, y)) / width).expand(1, 3, -1, -1)
        patterned = plain + 0.3 * torch.sin(25 * x) * plain + grain
        edges[width] = [float(outline(image, disc)[0, ACROSS]) for image in (plain, patterned)]

    assert min(edges[0.02]) > max(edges[0.2]) + 0.3, edges


def test_no_lesion_and_a_whole_image_have_numbers():
    for mask in (torch.zeros(2, 1, 64, 64), torch.ones(2, 1, 64, 64)):
        image = torch.rand(2, 3, 64, 64) * 2 - 1
        assert outline(image, mask).isfinite().all()
        assert surface(image, mask).isfinite().all()


def numbers(pattern: Tensor, band: int) -> Tensor:
    """Return the five numbers of one band inside the lesion."""
    found = surface(0.3 * pattern.expand(1, 3, -1, -1), lesion(mean=0.7))
    assert found.shape == (1, SURFACE)
    return found[0, band * NUMBERS : (band + 1) * NUMBERS]


@pytest.mark.parametrize("turn", [0.0, 0.5])
def test_streaks_dots_and_nets_differ_and_do_not_turn(turn):
    x, y = plane()
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    wave, middle, coarse = 2 * math.pi / 0.25, 1, 2
    streaks = torch.sin(wave * u)
    net = 1 - 2 * torch.minimum((wave * u / 2).sin().abs(), (wave * v / 2).sin().abs())
    dots = (0.5 + 0.5 * torch.sin(wave * u)) * (0.5 + 0.5 * torch.sin(wave * v))
    plain = torch.zeros_like(x)

    energy, skewness, _, coherence, _ = (
        dict(zip("sndp", row, strict=True))
        for row in zip(*(numbers(pattern, coarse).tolist() for pattern in (streaks, net, dots, plain)), strict=True)
    )
    fourfold = {name: float(numbers(pattern, middle)[4]) for name, pattern in (("n", net), ("d", dots))}

    assert energy["p"] < min(energy["s"], energy["n"], energy["d"]) - 2
    assert coherence["s"] > 0.9 > 0.3 > max(coherence["n"], coherence["d"])
    assert skewness["d"] > 0.6 > max(skewness["n"], skewness["s"])
    assert fourfold["n"] > 0.5 > fourfold["d"]


def test_grain_shows_in_the_finest_band():
    torch.manual_seed(0)
    clean, grainy = (numbers(level * torch.randn(64, 64), 0)[0] for level in (0.01, 0.3))
    assert grainy > clean + 2


def test_a_larger_picture_of_the_same_gives_the_same():
    x, _ = plane(128)
    pattern = 0.3 * torch.sin(25 * x).expand(1, 3, -1, -1)
    star = [lesion(lambda a: 1 + 0.4 * torch.cos(5 * a), size=size) for size in (64, 128)]
    small = torch.nn.functional.avg_pool2d(pattern, 2)
    assert outline(small, star[0])[0, :SYMMETRY].sub(outline(pattern, star[1])[0, :SYMMETRY]).abs().max() < 0.6
    coarsest = slice((len(BLURS) - 1) * NUMBERS, len(BLURS) * NUMBERS)
    assert surface(small, star[0])[0, coarsest].sub(surface(pattern, star[1])[0, coarsest]).abs().max() < 0.2
