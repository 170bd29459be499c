"""The phantom set: what is drawn is what is told, and nothing depends on anything it should not."""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest

from anastyle import DATASETS, Record
from anastyle.config import section
from anastyle_plugins.datasets import phantom


def dataset(**options: object):
    cls, config = section(DATASETS, {"name": "phantom", "image_size": 16, **options}, "data")
    return cls(config)


def same(first: Record, second: Record) -> bool:
    pixels = [np.asarray(picture) for r in (first, second) for picture in (r.image, r.mask)]
    words = [(r.key, r.caption, r.label, r.group, r.split, r.factors) for r in (first, second)]
    return words[0] == words[1] and np.array_equal(pixels[0], pixels[2]) and np.array_equal(pixels[1], pixels[3])


@pytest.fixture(scope="module")
def draws() -> list[dict[str, str]]:
    """The factors and look of many images, none of them painted."""
    drawn = []
    for index in range(3000):
        rng = np.random.default_rng([2026, index])
        look = phantom.LOOKS[rng.integers(len(phantom.LOOKS))]
        drawn.append({"look": look, **phantom.draw_factors(rng, wide=False)})
    return drawn


def test_a_seed_gives_the_same_set_whatever_its_size() -> None:
    few, many = (list(dataset(train=train, test=2).records()) for train in (3, 6))

    assert [r.split for r in few] == ["train"] * 3 + ["test"] * 2
    assert all(same(a, b) for a, b in zip(few[:3], many[:3], strict=True))
    assert all(same(a, b) for a, b in zip(few[3:], many[6:], strict=True))
    assert len({r.key for r in many}) == 8
    assert same(many[4], dataset(train=1, test=1).record(4, "train"))


def test_other_seeds_give_other_images() -> None:
    first, second = (dataset(seed=seed).record(0, "train") for seed in (1, 2))

    assert not np.array_equal(np.asarray(first.image), np.asarray(second.image))


def test_factors_are_uniform(draws: list[dict[str, str]]) -> None:
    for name, values in {"look": phantom.LOOKS, **phantom.FACTORS}.items():
        counts = Counter(draw[name] for draw in draws)
        expected = len(draws) / len(values)
        assert set(counts) == set(values)
        assert all(abs(count - expected) < 4.5 * expected**0.5 for count in counts.values()), name


def test_factors_are_pairwise_independent(draws: list[dict[str, str]]) -> None:
    for one, other in combinations(draws[0], 2):
        table = Counter((draw[one], draw[other]) for draw in draws)
        rows, columns = (sorted({pair[side] for pair in table}) for side in (0, 1))
        expected = len(draws) / (len(rows) * len(columns))
        chi2 = sum((table[row, column] - expected) ** 2 / expected for row in rows for column in columns)
        freedom = len(rows) * len(columns) - 1
        assert chi2 < freedom + 4.5 * (2 * freedom) ** 0.5, (one, other)


def images(count: int = 60, **options: object) -> Iterator[Record]:
    made = dataset(**options)
    return (made.record(index, "train") for index in range(count))


def test_captions_say_each_factor_in_its_own_field_and_class() -> None:
    for record in images():
        caption = record.caption
        assert record.label in caption.text.lower()
        assert caption.label == record.label
        assert caption.anatomy.lower() in caption.text.lower()
        assert caption.style.lower() in caption.text.lower()
        for name, value in record.factors.items():
            field = caption.anatomy if name in phantom.ANATOMY else caption.style
            assert any(word in field for word in phantom.FACTORS[name][value]), (name, value, caption)


def test_fields_do_not_name_the_other_factor() -> None:
    """No value that only style has stands in an anatomy field, and the other way round."""
    for record in images():
        for name, values in phantom.FACTORS.items():
            other = record.caption.style if name in phantom.ANATOMY else record.caption.anatomy
            words = {word for synonyms in values.values() for word in synonyms}
            assert not words & set(other.replace(",", " ").replace(":", " ").split()), (name, other)


def test_captions_vary_for_one_and_the_same_lesion() -> None:
    factors = {name: next(iter(values)) for name, values in phantom.FACTORS.items()}
    rng = np.random.default_rng(0)

    texts = {phantom.write_caption(rng, "dermoscopy", factors, generic=False).text for _ in range(50)}

    assert len(texts) > 45


def test_masks_are_binary_and_their_area_and_place_follow_the_factors() -> None:
    area: dict[str, list[float]] = {"small": [], "medium": [], "large": []}
    for record in images(100, image_size=32):
        mask = np.asarray(record.mask)
        assert set(np.unique(mask)) == {0, 255}
        area[record.factors["size"]].append((mask > 0).mean())
        x, y = phantom.PLACES[record.factors["place"]]
        down, across = np.argwhere(mask).mean(axis=0) / 16 - 1  # in [-1, 1], like the places
        assert x == 0 or np.sign(across) == np.sign(x), record.factors
        assert y == 0 or np.sign(down) == np.sign(y), record.factors

    assert max(area["small"]) < min(area["large"])
    assert np.mean(area["small"]) < np.mean(area["medium"]) < np.mean(area["large"])


def test_the_lesion_is_where_its_mask_is() -> None:
    for record in images(40, image_size=32):
        inside = np.asarray(record.mask) > 0
        lightness = np.asarray(record.image.convert("L")).astype(float)
        assert lightness[inside].mean() < lightness[~inside].mean(), record.factors


def test_style_leaves_the_mask_alone_and_anatomy_the_colour() -> None:
    factors = {name: next(iter(values)) for name, values in phantom.FACTORS.items()}
    styles = [
        factors | {"palette": palette, "texture": "dotted", "lighting": "side"} for palette in phantom.STYLE["palette"]
    ]

    masks = [np.asarray(phantom.render(np.random.default_rng(5), "dermoscopy", f, 32)[1]) for f in [factors, *styles]]

    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    pictures = [phantom.render(np.random.default_rng(5), "dermoscopy", f, 32)[0] for f in styles]
    colours = [np.asarray(picture)[masks[0] > 0].mean(axis=0) for picture in pictures]
    assert min(np.abs(a - b).max() for a, b in combinations(colours, 2)) > 10


def test_the_wide_world_has_more_values_and_undivided_captions() -> None:
    wide = list(images(60, world="wide"))

    met = {name: {r.factors[name] for r in wide} for name in phantom.FACTORS}
    assert any(met[name] - set(values) for name, values in phantom.FACTORS.items())
    assert all(r.caption.anatomy == r.caption.style == "" for r in wide)
    assert all(r.factors[name] in values for r in images(20) for name, values in phantom.FACTORS.items())
