"""Whether images show what their captions say, on words and squares whose right answers are known."""

import numpy as np
import pytest
import torch
from fake_split import FakeSplit

from anastyle import CAPTIONERS, ConfigError
from anastyle.evaluation.control.faithful import Reader, by_chance, faithfulness
from anastyle.evaluation.control.lesions import Lesions
from anastyle.evaluation.reference import Settings, reference
from anastyle.evaluation.tables import Row, control_tables, main_table
from anastyle.evaluation.utility.arms import pool
from anastyle.settings import EvaluateSettings

DRAWS = Settings(draws=50, max_side=32)
SIZE = 32


def words(seed: int, count: int = 300) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    sizes, colours = rng.choice(["small", "large"], count), rng.choice(["red", "brown", "black", "pink"], count)
    return [{"anatomy/size": size, "style/colour": colour} for size, colour in zip(sizes, colours, strict=True)]


def shares(told, asked):
    found = faithfulness({"generated": told, "real": asked}, asked, "reader-test", DRAWS)
    return {name: value.value for name, value in found.items()}, found


def test_what_is_asked_and_seen_counts_and_chance_is_the_floor():
    asked = words(0)
    same, values = shares(asked, asked)
    other, _ = shares(words(1), asked)

    assert same == {"faithful_mean": 1, "faithful/anatomy/size": 1, "faithful/style/colour": 1}
    assert other["faithful/anatomy/size"] == pytest.approx(0.5, abs=0.1)
    assert other["faithful/style/colour"] == pytest.approx(0.25, abs=0.1)
    assert values["faithful/style/colour"].floor == pytest.approx(0.25, abs=0.03)
    assert values["faithful/style/colour"].ceiling == 1
    assert values["faithful_mean"].floor == pytest.approx(0.375, abs=0.03)


def test_one_factor_lost_is_lost_alone_and_a_missing_lesion_shows_nothing():
    asked = words(0)
    half = [{**said, "anatomy/size": "small"} for said in asked]
    none = [{"anatomy/lesions": "none"} for _ in asked]

    found, values = shares(half, asked)
    assert found["faithful/style/colour"] == 1
    assert values["faithful/anatomy/size"].samples.mean() == found["faithful/anatomy/size"]
    assert values["faithful_mean"].samples.shape == (2, 300)
    assert found["faithful/anatomy/size"] == pytest.approx(values["faithful/anatomy/size"].floor, abs=0.01)
    assert set(shares(none, asked)[0].values()) == {0}


def test_what_few_captions_tell_and_what_all_tell_alike_is_left_out():
    asked = [
        {**said, "anatomy/lie": "flat" if row % 2 else "steep"} if row < 19 else said
        for row, said in enumerate(words(0))
    ]
    asked = [{**said, "style/light": "even"} for said in asked]

    assert set(shares(asked, asked)[0]) == {"faithful_mean", "faithful/anatomy/size", "faithful/style/colour"}


def test_the_interval_of_the_mean_is_that_of_the_mean_where_captions_tell_different_things():
    asked = [said if row % 3 else {"style/colour": said["style/colour"]} for row, said in enumerate(words(0))]
    half = [{**said, "style/colour": "red"} for said in words(0)]

    _, values = shares(half, asked)

    mean, parts = values["faithful_mean"], [values[f"faithful/{name}"] for name in ("anatomy/size", "style/colour")]
    assert mean.value == pytest.approx(sum(part.value for part in parts) / 2)
    assert mean.low < mean.value < mean.high
    widths = [part.high - part.low for part in (mean, parts[1])]
    assert widths[0] < widths[1], "one of its two parts is certain"


def test_chance_is_over_pairs_of_two():
    assert by_chance(np.array(["a", "b"]), np.array(["a", "b"])) == 0
    assert by_chance(np.array(["b", "a"]), np.array(["a", "b"])) == 1
    assert by_chance(np.array(["a", "a", "b"]), np.array(["a", "b", "b"])) == pytest.approx(2 / 6)


class Bright:
    """Says where squares lie: what is far from grey."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float().mean(dim=1, keepdim=True) - 127.5).abs() > 60

    def skill(self, held) -> tuple[float | None, int]:
        return None, 0

    def fingerprint(self) -> str:
        return "segmenter-bright"


@pytest.fixture(scope="module")
def lesions() -> Lesions:
    train, test = FakeSplit(60, 0, size=SIZE), FakeSplit(60, 1, size=SIZE)
    cls = CAPTIONERS.get("template")
    seen = pool(test, SIZE, range(len(test)))
    reader = Reader(cls(cls.Config()), "template", train, seen, SIZE)
    real = reference(train, test, range(60), DRAWS)
    return Lesions(Bright(), seen, real, reader)  # type: ignore[arg-type]


def test_the_captioner_sees_squares_where_and_how_they_are(lesions):
    test = FakeSplit(60, 1, size=SIZE)
    images = test.bytes()

    real = lesions.faithfulness(images, None, DRAWS)
    assert real["faithful/anatomy/place"].value > 0.95
    assert real["faithful/style/colour"].value > 0.8
    assert real["faithful_mean"].ceiling == pytest.approx(real["faithful_mean"].value)

    moved = lesions.faithfulness(images.flip(-1), None, DRAWS)
    assert moved["faithful/anatomy/place"].value < 0.05, "a mirror image shows the square on the other side"
    assert moved["faithful/style/colour"].value == real["faithful/style/colour"].value

    inverted = lesions.faithfulness(255 - images, images, DRAWS)
    assert inverted["faithful/anatomy/place"].value > 0.95
    assert inverted["faithful/style/colour"].value < 0.2
    assert inverted["faithful/style/colour"].decoded == real["faithful/style/colour"].value


def test_the_tables_show_every_attribute_and_the_mean(lesions):
    values = lesions.faithfulness(FakeSplit(60, 1, size=SIZE).bytes(), None, DRAWS)
    rows = [Row("full", 0, values)]

    assert [column.title for column in main_table(rows).columns] == ["Caption, %"]
    (table,) = control_tables(rows)
    assert table.title == "What the caption says and the image shows, %"
    assert "place" in [column.title for column in table.columns]
    assert all("floor" in protocol for protocol in table.protocols.values())


def test_masks_are_scored_against_the_lesions_of_their_images(lesions):
    test = FakeSplit(60, 1, size=SIZE)
    masks = test.masks.to(torch.uint8)

    own = lesions.pairs(test.bytes(), masks, DRAWS)["pair_dice"]
    shuffled = lesions.pairs(test.bytes(), masks.roll(1, dims=0), DRAWS)["pair_dice"]
    none = lesions.pairs(test.bytes(), torch.zeros_like(masks), DRAWS)["pair_dice"]

    assert own.value > 0.9
    assert 0.2 < own.floor < 0.8
    assert shuffled.value == pytest.approx(own.floor, abs=0.2)
    assert none.value == 0


def test_a_captioner_that_tells_nothing_is_refused():
    with pytest.raises(ConfigError, match="tells no attributes"):
        EvaluateSettings(captioner="class_label")
    with pytest.raises(ConfigError, match=r"no captioner 'templat'.*template"):
        EvaluateSettings(captioner="templat")
    assert EvaluateSettings(captioner="").captioner == ""


def test_a_network_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"features: there is no 'random_con'.*random_conv"):
        EvaluateSettings(features=["domain", "random_con"])
