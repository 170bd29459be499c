"""The phantom set: what is drawn is what is told, and nothing depends on anything it should not."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest

from anastyle import DATASETS, ConfigError, Record
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
    return drawn(3000)


def drawn(count: int, split: str = "train", **options: object) -> list[dict[str, str]]:
    """Return what the first images of a split are to show."""
    made, first = dataset(**options), phantom.FIRST[split]
    lesions = (
        made.lesion(np.random.default_rng([made.config.seed, index]), index, split)
        for index in range(first, first + count)
    )
    return [{"look": lesion.look, **lesion.factors} for lesion in lesions]


def test_a_seed_gives_the_same_set_whatever_its_size() -> None:
    few, many = (list(dataset(train=train, validation=1, test=2).records()) for train in (3, 6))

    assert [r.split for r in few] == ["train"] * 3 + ["validation"] + ["test"] * 2
    assert all(same(a, b) for a, b in zip(few[:3], many[:3], strict=True))
    assert all(same(a, b) for a, b in zip(few[3:], many[6:], strict=True))
    assert len({r.key for r in many}) == 9
    assert same(many[4], dataset(train=1, validation=1, test=1).record(4, "train"))
    assert [r.split for r in dataset(train=1, validation=0, test=1).records()] == ["train", "test"]


def test_train_and_test_images_are_those_of_the_first_release() -> None:
    """Words and masks to the byte; pixels to a level, which another processor may round otherwise."""
    words, masks, made = hashlib.sha256(), hashlib.sha256(), dataset()
    for split, first in (("train", 0), ("test", 10_000_000)):
        for record in (made.record(index, split) for index in range(first, first + 8)):
            told = [record.key, list(record.caption), record.label, record.group, record.split, record.factors]
            words.update(json.dumps(told).encode())
            masks.update(np.asarray(record.mask).tobytes())

    assert words.hexdigest() == "99e8e9bb82394ee585166478d6105ed60e90b679d78afe700fafc74329644354"
    assert masks.hexdigest() == "af461de0b40e6d210f7bf798d775a3193f6494a4c8d50e29aab83a8dfa3d3255"
    for index, split, line in (
        (7, "train", [166, 201, 215, 205, 208, 203, 212, 233, 236, 101, 205, 203, 168, 235, 213, 169]),
        (10_000_007, "test", [211, 206, 205, 199, 200, 193, 173, 163, 156, 149, 145, 144, 138, 129, 115, 113]),
    ):
        reds = np.asarray(made.record(index, split).image)[8, :, 0].astype(int)
        assert np.abs(reds - line).max() <= 1


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


def following(draws: list[dict[str, str]]) -> dict[str, int]:
    """Count the draws in which a style factor is as its link would have it."""
    return {
        style: sum(draw[style] == phantom.FOLLOWING[style][draw[anatomy]] for draw in draws)
        for style, anatomy in phantom.LINKS.items()
    }


@pytest.mark.parametrize("linked", [0.5, 0.9])
@pytest.mark.parametrize("split", ["train", "validation", "test", "instruments"])
def test_style_follows_anatomy_in_training_alone(split: str, linked: float) -> None:
    count = 800
    for style, met in following(drawn(count, split, linked=linked)).items():
        chance = 1 / len(phantom.STYLE[style])  # that an independent draw is as the link would have it
        share = linked + (1 - linked) * chance if split == "train" else chance
        assert abs(met - count * share) < 4.5 * (count * share * (1 - share)) ** 0.5, style


def test_links_leave_the_look_the_anatomy_and_the_other_links_alone() -> None:
    plain, some, more = (drawn(300, linked=linked) for linked in (0.0, 0.4, 1.0))

    assert plain == drawn(300)
    for style, met in following(more).items():
        assert met == 300, style
    for before, after in zip(plain, some, strict=True):
        assert all(before[name] == after[name] for name in ("look", *phantom.ANATOMY))
    changed = Counter(sum(a[style] != b[style] for style in phantom.STYLE) for a, b in zip(plain, some, strict=True))
    assert set(changed) >= {0, 1, 2}  # each link is drawn by itself


def test_links_are_data_of_the_dataset() -> None:
    made = dataset(linked=0.9)

    assert made.links == {"palette": "shape", "texture": "boundary", "lighting": "size", "noise": "symmetry"}
    assert made.link_values["palette"] == {
        "round": "brown", "oval": "red", "kidney": "blue-grey", "lobed": "black", "star": "brown",
    }  # fmt: skip
    assert made.drawn_links()["palette"] == {"follows": "shape", "values": made.link_values["palette"]}
    assert dataset().drawn_links() == {}


def test_a_linked_set_tells_what_was_drawn_and_keeps_every_other_image() -> None:
    sizes = {"train": 12, "validation": 2, "test": 2}
    linked, plain = (list(dataset(**sizes, linked=share).records()) for share in (0.9, 0.0))
    train, held_out, instruments = linked[:12], linked[12:16], linked[16:]

    assert all(same(a, b) for a, b in zip(held_out, plain[12:], strict=True))
    assert [r.split for r in instruments] == ["instruments"] * 12
    assert all(same(a._replace(key=b.key, split="train"), b) for a, b in zip(instruments, plain[:12], strict=True))
    assert len({r.key for r in linked}) == len(linked)
    assert any(a.factors != b.factors for a, b in zip(train, plain, strict=False))
    for record in train:
        assert all(
            any(word in record.caption.style for word in phantom.STYLE[style][record.factors[style]])
            for style in phantom.STYLE
        )


def test_instruments_are_at_most_4096(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantom, "INSTRUMENTS", 3)

    splits = Counter(r.split for r in dataset(train=5, validation=1, test=1, linked=0.5).records())

    assert splits == {"train": 5, "validation": 1, "test": 1, "instruments": 3}


@pytest.mark.parametrize("options", [{"linked": 1.1}, {"linked": -0.1}, {"linked": 0.9, "world": "wide"}])
def test_links_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"data\.linked"):
        dataset(**options)
