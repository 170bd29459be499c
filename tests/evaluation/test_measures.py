"""Values: each with interval, floor and card; features computed once; what is not defined is left out."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from anastyle import FEATURES, DataError, Feature
from anastyle.evaluation.features import features_of
from anastyle.evaluation.measures import FRECHET, MOST, distance_values, thinned
from anastyle.evaluation.reference import Reference, Settings
from anastyle.evaluation.values import Card, Value

FAST = Settings(draws=12)
SHARES = ("precision", "recall", "density", "coverage")


class Means(Feature):
    """The mean colour of each quarter, (B, 12), computed a counted number of times."""

    looks = 0

    def __init__(self, name: str = "means-1") -> None:
        super().__init__(None)
        self.name = name

    def forward(self, image):
        self.looks += 1
        return torch.nn.functional.adaptive_avg_pool2d(image, 2).flatten(1)

    def fingerprint(self):
        return self.name


def images(n: int, seed: int, level: int = 128) -> torch.Tensor:
    """Return blotchy images, uint8 (n, 3, 16, 16)."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 2, 2, generator=rng) * 30 + level
    fine = torch.randn(n, 3, 16, 16, generator=rng) * 8
    return (coarse.repeat_interleave(8, 2).repeat_interleave(8, 3) + fine).clamp(0, 255).to(torch.uint8)


def real(cache=None, *, held: int = 40) -> Reference:
    return Reference(images(60, 0), images(held, 1), 16, "60 real images", cache)


def test_every_number_comes_with_interval_floor_protocol_and_card():
    values = distance_values(images(40, 2), real(), {"clip": Means(), "domain": Means("two")}, FAST)

    assert set(values) == {
        "fd_clip", "kid_clip", "cmmd", *(f"{name}_clip" for name in SHARES), "fd_domain", "kid", *SHARES,
    }  # fmt: skip
    for value in values.values():
        assert value.low <= value.value <= value.high
        assert np.isfinite([value.low, value.high, value.floor]).all()
        assert value.n == 40
        assert "40 generated against 60 real images; features" in value.protocol
    assert len({value.hash for value in values.values()}) == len(values)
    assert values["fd_clip"].value < 2 * values["fd_clip"].floor
    assert all(0 <= values[name].low <= values[name].high <= 1 for name in ("precision", "recall", "coverage"))


def test_darker_images_move_the_distances_and_leave_the_real_ones():
    near, far = (distance_values(images(40, 2, level), real(), {"domain": Means()}, FAST) for level in (128, 90))

    for name in ("fd_domain", "kid"):
        assert far[name].low > near[name].high
        assert far[name].floor == near[name].floor
    assert far["precision"].value < 0.5 * near["precision"].value
    assert far["coverage"].value < 0.5 * near["coverage"].value


def test_a_share_that_no_half_sample_changes_has_no_interval():
    far = distance_values(images(40, 2, 250), real(), {"domain": Means()}, FAST)

    assert far["recall"].value == 0
    assert far["recall"].low is far["recall"].high is None


def test_networks_can_be_asked_for_the_frechet_distance_alone_and_without_intervals():
    values = distance_values(
        images(40, 2), real(), {"highfreq": Means()}, Settings(draws=0), chosen={"highfreq": [FRECHET]}
    )

    assert set(values) == {"fd_highfreq"}
    assert values["fd_highfreq"].low is values["fd_highfreq"].high is None
    assert "interval: none" in values["fd_highfreq"].protocol


def test_real_images_after_the_autoencoder_are_measured_like_generated_ones():
    decoded = images(40, 3, 90)
    value = distance_values(images(40, 2), real(), {"domain": Means()}, FAST, decoded=decoded)["fd_domain"]

    assert value.decoded == distance_values(decoded, real(), {"domain": Means()}, FAST)["fd_domain"].value
    assert value.decoded > 2 * value.floor
    assert distance_values(images(40, 2), real(), {"domain": Means()}, FAST)["fd_domain"].decoded is None


def test_numbers_compare_where_all_of_the_protocol_is_the_same_and_only_there():
    def kid(generated=None, chosen=None, network=None, settings=FAST):
        network = {"domain": network or Means()}
        return distance_values(images(40, 2) if generated is None else generated, chosen or real(), network, settings)[
            "kid"
        ]

    first = kid()
    assert kid(images(40, 5)).hash == first.hash  # other images of the same number
    others = [
        kid(images(41, 2)),
        kid(network=Means("means-2")),
        kid(settings=Settings(draws=13)),
        kid(chosen=real(held=30)),
        kid(chosen=Reference(images(60, 7), images(40, 1), 16, "60 real images")),
    ]
    assert len({first.hash, *(other.hash for other in others)}) == 6


def test_a_card_survives_json_and_values_from_before_there_were_cards_still_read():
    value = distance_values(images(40, 2), real(), {"domain": Means()}, FAST)["kid"]
    old = {key: one for key, one in value.to_json().items() if key != "card"}

    back = Value(**json.loads(json.dumps(value.to_json())))

    assert back == value
    assert isinstance(back.card, Card)
    assert back.hash == value.hash
    assert len(value.hash) == 12
    assert Value(**old).hash == ""
    assert dataclasses.replace(value, card=None) == Value(**old)


def test_features_are_computed_once_for_the_same_pixels_and_network(tmp_path):
    network, pixels = Means(), images(40, 2)
    first = features_of(network, pixels, cache=tmp_path)

    again = features_of(network, pixels.clone(), cache=tmp_path)

    assert network.looks == 1
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, features_of(Means(), pixels))
    for change in (
        lambda: features_of(network, pixels.flip(0), cache=tmp_path),
        lambda: features_of(network, pixels, 8, cache=tmp_path),
    ):
        before = network.looks
        change()
        assert network.looks == before + 1
    other = Means("other")
    features_of(other, pixels, cache=tmp_path)
    assert other.looks == 1


def test_a_reference_with_a_cache_spares_the_next_process_the_looking(tmp_path):
    first, second = Means(), Means()

    values = [distance_values(images(40, 2), real(tmp_path), {"domain": network}, FAST) for network in (first, second)]

    assert (first.looks, second.looks) == (3, 0)
    assert values[0] == values[1]


def test_features_that_are_not_finite_are_refused_and_not_kept(tmp_path):
    class Broken(Means):
        def forward(self, image):
            return super().forward(image).index_fill(0, torch.tensor([1, 2]), torch.nan)

    with pytest.raises(DataError, match="means-1: the features of 2 of 40 images are not finite"):
        features_of(Broken(), images(40, 2), cache=tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_real_images_that_are_all_alike_are_refused():
    grey = torch.full((60, 3, 16, 16), 128, dtype=torch.uint8)

    with pytest.raises(DataError, match="all 60 real images give the same features"):
        distance_values(images(40, 2), Reference(grey, grey[:40], 16, "grey"), {"domain": Means()}, FAST)


def test_generated_images_that_are_all_alike_have_a_large_distance_and_no_shares():
    grey = torch.full((40, 3, 16, 16), 128, dtype=torch.uint8)

    values = distance_values(grey, real(), {"domain": Means()}, FAST)

    assert set(values) == {"fd_domain", "kid"}
    assert values["fd_domain"].value > 5 * values["fd_domain"].floor


def test_below_twenty_images_no_share_is_given_and_without_others_no_floor():
    few = distance_values(images(19, 2), real(held=19), {"domain": Means()}, FAST)
    none_held = distance_values(images(40, 2), real(held=0), {"domain": Means()}, FAST)

    assert set(few) == {"fd_domain", "kid"}
    assert all(value.floor is None for value in none_held.values())
    assert len(none_held) == 6


def test_more_points_than_can_be_paired_are_thinned_the_same_way_every_time():
    points = np.arange(MOST + 500.0)[:, None]

    one, two = thinned(points, MOST, 0), thinned(points, MOST, 0)

    assert len(np.unique(one)) == MOST
    np.testing.assert_array_equal(one, two)
    assert len(thinned(points[:20], MOST, 0)) == 20


def test_blur_moves_the_upper_spectrum():
    cls = FEATURES.get("highfreq")
    network = {"highfreq": cls(cls.Config(rings=3))}
    soft = torch.nn.functional.avg_pool2d(images(40, 2).float(), 3, stride=1, padding=1, count_include_pad=False)

    sharp, blurred = (
        distance_values(some, real(), network, FAST)["fd_highfreq"] for some in (images(40, 2), soft.to(torch.uint8))
    )

    assert blurred.low > 5 * sharp.high
