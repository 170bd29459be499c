"""Values: real images stand at floor and ceiling, wrong ones away from both; none comes without a protocol."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from anastyle import DataError
from anastyle.evaluation.evaluate import corrected, evaluate_images
from anastyle.evaluation.reference import Settings, few_of, reference
from anastyle.evaluation.values import Value

FAST = Settings(draws=30)


@pytest.fixture(scope="module")
def asked() -> list[int]:
    return list(range(40))


def test_real_images_of_the_asked_rows_reach_floor_and_ceiling(train, test, judge, features, asked):
    values = evaluate_images(test.bytes(asked), asked, train, test, features=features, judge=judge, settings=FAST)

    assert set(values) == {
        "fd_domain",
        "kid",
        "precision",
        "recall",
        "density",
        "coverage",
        "fd_highfreq",
        "fd_random_conv",
        "kid_random_conv",
        "label_accuracy",
        "factor/place",
        "factor/noise",
        "factor_mean",
        "corrected/place",
        "corrected/noise",
        "factor_mean_corrected",
    }
    assert values["factor_mean"].value == values["factor_mean"].ceiling
    assert values["factor_mean_corrected"].value == pytest.approx(1)
    assert values["fd_domain"].value == pytest.approx(values["fd_domain"].floor), "they are the floor's own images"
    assert all(value.n == 40 and value.protocol for value in values.values())


def test_wrong_images_are_told_from_real_ones(train, test, judge, features, asked):
    place, noise = test.factors["place"], test.factors["noise"]
    elsewhere = [int(((place != place[row]) & (noise == noise[row])).nonzero()[0]) for row in asked]
    smooth = torch.full_like(test.bytes(asked), 128)

    real = evaluate_images(test.bytes(asked), asked, train, test, features=features, settings=FAST)
    wrong_place = evaluate_images(test.bytes(elsewhere), asked, train, test, features={}, judge=judge, settings=FAST)
    empty = evaluate_images(smooth, asked, train, test, features=features, settings=FAST)

    assert wrong_place["factor/place"].value < 0.1
    assert wrong_place["factor/noise"].value > 0.8
    for name in ("fd_domain", "kid", "fd_highfreq"):
        assert empty[name].value > 10 * abs(real[name].value)
        assert empty[name].low > real[name].high


def test_intervals_hold_their_value_and_narrow_with_more_images(train, test, judge, features):
    settings = Settings(draws=60)
    few, many = (
        evaluate_images(test.bytes(rows), rows, train, test, features=features, judge=judge, settings=settings)
        for rows in (list(range(12)), list(range(72)))
    )

    for values in (few, many):
        for value in values.values():
            if value.low is None:  # a share of nothing or of everything
                assert value.value in (0, 1)
            else:
                assert value.low <= value.value <= value.high
    assert many["fd_highfreq"].high - many["fd_highfreq"].low < few["fd_highfreq"].high - few["fd_highfreq"].low


def test_chance_is_the_commonest_answer_and_decoded_images_give_a_second_ceiling(train, test, judge, asked):
    grey = torch.full((40, 3, 16, 16), 128, dtype=torch.uint8)

    values = evaluate_images(
        test.bytes(asked), asked, train, test, features={}, judge=judge, decoded=grey, settings=FAST
    )

    place = test.factors["place"][asked]
    assert values["factor/place"].floor == pytest.approx(
        max(float(place.float().mean()), 1 - float(place.float().mean()))
    )
    assert values["factor/place"].decoded < values["factor/place"].ceiling
    assert values["factor_mean"].decoded == pytest.approx(
        (values["factor/place"].decoded + values["factor/noise"].decoded) / 2
    )


def test_the_real_images_are_two_disjoint_parts_the_floor_of_as_many_as_are_generated(train, test):
    first, again = (reference(train, test, range(30), Settings()) for _ in range(2))

    assert (len(first.against), len(first.held)) == (50, 30)
    assert torch.equal(first.held, test.bytes(list(range(30)))), "the real images of the very captions"
    assert torch.equal(first.against, again.against)
    rows = {bytes(image.numpy().tobytes()) for image in first.against}
    assert not any(bytes(image.numpy().tobytes()) in rows for image in first.held)


def test_a_test_split_that_is_painted_whole_is_measured_against_training_images(train, test):
    chosen = reference(train, test, range(80), Settings())

    assert (len(chosen.against), len(chosen.held)) == (96, 80)
    assert "96 real train images; floor: the 80 real test images of the same captions" in chosen.words


def test_of_many_training_images_some_are_drawn_the_same_ones_every_time():
    assert len(few_of(9000, 0)) == len(set(few_of(9000, 0))) == 2048
    assert few_of(9000, 0) == few_of(9000, 0)
    assert few_of(96, 0) == list(range(96))


def test_an_accuracy_is_corrected_for_chance_up_to_its_ceiling():
    hits = np.asarray([1.0, 1.0, 0.0, 1.0, np.nan])
    value = Value(0.75, 0.5, 1.0, 0.25, 4, "how", ceiling=0.95, decoded=0.85, samples=hits)

    found, real = corrected(value), corrected(dataclasses.replace(value, decoded=None))

    assert (found.value, found.low, found.high) == pytest.approx((0.5 / 0.6, 0.25 / 0.6, 0.75 / 0.6))
    assert (found.floor, found.decoded) == (0, 1)
    assert np.nanmean(found.samples) == pytest.approx(found.value)
    assert real.value == pytest.approx(0.5 / 0.7)
    assert "real images after the autoencoder, 0.850" in found.protocol
    assert corrected(dataclasses.replace(value, decoded=0.25)) is None, "nothing lies between chance and ceiling"


def test_hits_are_kept_by_caption(train, test, judge, asked):
    place = test.factors["place"]
    elsewhere = [int((place != place[row]).nonzero()[0]) if row % 2 else row for row in asked]

    values = evaluate_images(test.bytes(elsewhere), asked, train, test, features={}, judge=judge, settings=FAST)

    hits = values["factor/place"].samples
    assert hits.shape == (40,)
    assert hits[::2].mean() > 0.9 > 0.1 > hits[1::2].mean()
    assert values["factor_mean"].samples.shape == (2, 40)
    assert values["factor_mean"].samples.mean() == pytest.approx(values["factor_mean"].value)
    assert "samples" not in values["factor_mean"].to_json()


def test_the_same_images_give_the_same_numbers(train, test, features, judge, asked):
    one, two = (
        evaluate_images(test.bytes(asked).flip(2), asked, train, test, features=features, judge=judge, settings=FAST)
        for _ in range(2)
    )

    assert one == two


def test_a_value_without_protocol_cannot_be_made_and_one_with_it_survives_json():
    value = Value(1.5, 1.0, 2.0, 0.5, 10, "how")

    assert Value(**json.loads(json.dumps(value.to_json()))) == value
    with pytest.raises(ValueError, match="needs a protocol"):
        Value(1.5)


@pytest.mark.parametrize(
    ("count", "rows", "words"),
    [(12, 13, "12 generated images and 13 captions"), (4, 4, "10 is the least"), (12, None, "test split of 80")],
)
def test_images_that_do_not_belong_to_their_rows_are_refused(train, test, count, rows, words):
    chosen = list(range(rows)) if rows else list(range(70, 82))

    with pytest.raises(DataError, match=words):
        evaluate_images(torch.zeros(count, 3, 16, 16, dtype=torch.uint8), chosen, train, test, features={})


def test_float_images_are_refused(train, test, asked):
    with pytest.raises(DataError, match="must be uint8"):
        evaluate_images(test.images[:40], asked, train, test, features={})
