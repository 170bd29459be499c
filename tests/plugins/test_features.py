"""Feature networks: what they see, what they ignore, and that they come back the same."""

import pytest
import torch

from anastyle import FEATURES, MissingError
from anastyle.evaluation.classifier import Classifier
from anastyle.evaluation.distances import frechet


class Blots:
    """One class, no factors: a bright blot of some size at some place, and its mask."""

    def __init__(self, n: int = 24, size: int = 16, *, masks: bool = True) -> None:
        rng = torch.Generator().manual_seed(0)
        self.size, self.with_masks = size, masks
        self.boxes = torch.randint(2, size - 6, (n, 2), generator=rng)
        self.extent = torch.randint(2, 6, (n,), generator=rng)
        self.labels = torch.zeros(n, dtype=torch.long)
        self.factors: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def mask(self, index: int, /):
        mask = torch.zeros(1, self.size, self.size)
        (y, x), extent = self.boxes[index].tolist(), int(self.extent[index])
        mask[:, y : y + extent, x : x + extent] = 1
        return mask if self.with_masks else None

    def image(self, index: int, /):
        (y, x), extent = self.boxes[index].tolist(), int(self.extent[index])
        image = torch.full((3, self.size, self.size), -0.5)
        image[:, y : y + extent, x : x + extent] = 0.7
        return image


def domain(**options):
    cls = FEATURES.get("domain")
    return cls(cls.Config(**options), classes=1)


def highfreq(**options):
    cls = FEATURES.get("highfreq")
    return cls(cls.Config(**options))


def image(seed: int = 0, size: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


def test_one_class_without_factors_learns_from_its_masks():
    network = domain(width=8, steps=2, batch_size=8)

    network.fit(Blots(), seed=0)

    assert network.trained().heads == {"mask_area": 4, "mask_place": 9}
    assert network(torch.rand(3, 3, 16, 16)).shape == (3, 8)


def test_without_masks_something_is_still_learned():
    network = domain(width=8, steps=2, batch_size=8)

    network.fit(Blots(masks=False), seed=0)

    assert network.trained().heads == {"brightness": 4}


def test_mask_targets_are_quartiles_and_places():
    from anastyle_plugins.features.domain import mask_targets

    masks = torch.zeros(5, 1, 9, 9, dtype=torch.uint8)
    masks[0, :, 0:1, 0:1] = 1
    masks[1, :, 0:2, 6:8] = 1
    masks[2, :, 3:6, 3:6] = 1
    masks[3, :, 5:9, 0:4] = 1  # the last is empty, as a normal case is

    targets = mask_targets(masks)

    assert targets["mask_place"].tolist() == [0, 2, 4, 6, -1]
    assert targets["mask_area"][-1] == -1
    assert targets["mask_area"][:4].diff().min() >= 0
    assert targets["mask_area"][3] > targets["mask_area"][0]


def test_domain_features_have_unit_variance_on_what_they_learned_from():
    split = Blots(48)
    network = domain(width=8, steps=60, batch_size=48)
    network.fit(split, seed=0)

    features = network.eval()(torch.stack([split.image(row) for row in range(48)]))

    assert 0.3 < float(features.var(dim=0).mean()) < 3


def test_domain_features_come_back_from_disk_and_repeat_with_their_seed(tmp_path):
    first, again = (domain(width=8, steps=2, batch_size=8) for _ in range(2))
    first.fit(Blots(), seed=3)
    again.fit(Blots(), seed=3)
    first.save(tmp_path / "domain.safetensors")

    back = domain().load(tmp_path / "domain.safetensors")

    assert back.fingerprint() == first.fingerprint() == again.fingerprint()
    assert torch.equal(back(image(size=16)), first.eval()(image(size=16)))


def test_domain_features_before_training_say_what_to_do():
    with pytest.raises(MissingError, match=r"domain\.path="):
        domain()(image())


def test_a_domain_network_that_is_named_is_read_and_stays_as_it_is(tmp_path):
    first = domain(width=8, steps=2, batch_size=8)
    first.fit(Blots(), seed=3)
    first.save(tmp_path / "domain.safetensors")

    named = domain(path=str(tmp_path / "domain.safetensors"))
    named.fit(Blots(), seed=4)

    assert named.fingerprint() == first.fingerprint()


def test_colour_features_see_another_palette_and_not_finer_detail():
    cls = FEATURES.get("colour")
    network = cls(cls.Config())
    start = network(image())
    pale = image() * torch.tensor([1.0, 0.7, 0.7])[:, None, None]

    assert start.shape == (2, 54)
    assert (network(pale) - start).abs().mean() > 20 * (network(image().flip(3).flip(3)) - start).abs().mean()
    assert (network(image().roll(1, dims=3)) - start).abs().mean() < 0.2 * (network(pale) - start).abs().mean()


def test_the_domain_network_is_not_the_judges():
    network = domain(width=64, steps=1, batch_size=8)
    network.fit(Blots(), seed=0)
    torch.manual_seed(0)
    judge = Classifier(network.trained().heads, side=16)

    assert not torch.equal(judge.fine[0].weight, network.trained().fine[0].weight)


@pytest.mark.parametrize("size", [16, 33, 64, 128])
def test_highfreq_features_are_finite_at_any_size(size):
    network = highfreq()

    features = network(image(size=size))

    assert features.shape == (2, 3 * 12 + 4 + 4)
    assert features.isfinite().all()
    assert network(torch.zeros(1, 3, size, size)).isfinite().all()


def test_highfreq_features_see_blur_and_hardly_see_brightness_or_place():
    network = highfreq()
    sharp = image()
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(sharp, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    moved = sharp.roll((5, 9), dims=(2, 3))

    start = network(sharp)
    by_blur, by_light, by_move = ((network(other) - start).abs().mean() for other in (blurred, sharp + 0.1, moved))

    assert by_blur > 5 * by_move
    assert by_light < 1e-3 * by_blur


def test_highfreq_directions_tell_stripes_from_each_other():
    axis = torch.arange(64.0)
    stripes = (axis * 2 * torch.pi / 4).sin()
    upright = 0.5 * stripes.expand(64, 64)
    images = torch.stack([upright, upright.T])[:, None].expand(2, 3, 64, 64)

    directions = highfreq()(images)[:, 36:40]

    assert directions[0].argmax() != directions[1].argmax()


def test_highfreq_options_change_its_name_and_its_width():
    assert highfreq().fingerprint() == highfreq().fingerprint() != highfreq(rings=4).fingerprint()
    assert highfreq(rings=4, directions=6)(image()).shape == (2, 12 + 6 + 4)


def test_an_image_too_small_for_a_spectrum_is_refused():
    with pytest.raises(ValueError, match="16 pixels a side"):
        highfreq()(image(size=8))


def test_highfreq_features_do_not_see_what_is_below_one_grey_level():
    smooth = torch.linspace(-0.8, 0.8, 32).expand(1, 3, 32, 32)
    grain = 2 / 255 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(0))

    bare, invisible, visible = (highfreq()(smooth + amount * grain) for amount in (0, 0.1, 4))

    assert (invisible - bare).abs().max() < 0.2
    assert (visible - bare).abs().max() > 2


def random_conv(**options):
    cls = FEATURES.get("random_conv")
    return cls(cls.Config(**options))


def spotted(n: int, seed: int) -> torch.Tensor:
    """Return blotchy images (n, 3, 32, 32) with a little grain."""
    rng = torch.Generator().manual_seed(seed)
    blotches = 0.4 * torch.randn(n, 3, 4, 4, generator=rng)
    return torch.nn.functional.interpolate(blotches, 32) + 0.05 * torch.randn(n, 3, 32, 32, generator=rng)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False),
        lambda image: image + torch.tensor([0.2, -0.1, -0.1])[:, None, None],
        lambda image: 0.8 * image,
        lambda image: image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(5)),
    ],
    ids=["blur", "colour", "contrast", "grain"],
)
def test_random_convolutions_see(change):
    network, fresh = random_conv(), spotted(150, 1)

    real, other, changed = (network(some).double().numpy() for some in (spotted(150, 0), fresh, change(fresh)))

    assert frechet(changed, real) > 1.5 * frechet(other, real)


def test_random_convolutions_are_of_the_order_of_one_and_hang_on_their_seed_alone():
    image = spotted(20, 0)
    torch.manual_seed(3)
    one = random_conv()(image)
    torch.manual_seed(4)

    assert torch.equal(one, random_conv()(image))
    assert not torch.allclose(one, random_conv(seed=1)(image))
    assert one.shape == (20, 64)
    assert one.abs().max() < 4
    assert random_conv().fingerprint() != random_conv(seed=1).fingerprint()
    assert not list(random_conv().parameters())
    assert not random_conv().state_dict()


def test_random_convolutions_need_sixteen_pixels():
    with pytest.raises(ValueError, match="needs 16 pixels"):
        random_conv()(image(size=8))
