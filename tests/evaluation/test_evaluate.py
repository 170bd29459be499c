"""Values: real images stand at floor and ceiling, wrong ones away from both; none comes without a protocol."""

import json

import pytest
import torch

from anastyle import DataError
from anastyle.evaluation.evaluate import evaluate_images
from anastyle.evaluation.reference import Settings, reference
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
        "label_accuracy",
        "factor/place",
        "factor/noise",
        "factor_mean",
    }
    assert values["factor_mean"].value == values["factor_mean"].ceiling
    assert values["fd_domain"].value < 3 * values["fd_domain"].floor
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


def test_the_real_images_are_two_disjoint_parts_the_same_every_time(train, test):
    first, again = (reference(train, test, 30, Settings()) for _ in range(2))

    assert (len(first.against), len(first.held)) == (50, 30)
    assert torch.equal(first.against, again.against)
    rows = {bytes(image.numpy().tobytes()) for image in first.against}
    assert not any(bytes(image.numpy().tobytes()) in rows for image in first.held)


def test_a_reference_to_the_training_split_says_so(train, test):
    chosen = reference(train, test, 500, Settings(reference="train"))

    assert (len(chosen.against), len(chosen.held)) == (96, 80)
    assert "96 real train images" in chosen.words


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
