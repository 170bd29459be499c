"""The captioners that need no model: what they measure, what they read, what they refuse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anastyle import CAPTIONERS, Caption, ConfigError, DataError, MissingError, Record
from anastyle.captioning.write import caption_set
from anastyle.data.captions import place
from anastyle.data.shards import write_shards
from anastyle.data.split import PreparedSet
from anastyle_plugins.captioners._look import field_of_view, lab_of, look_of, named
from anastyle_plugins.captioners._shape import shape_of
from anastyle_plugins.captioners._words import cuts_of, form, lie, side, size, symmetry

SIDE = 160
HERE = np.ones((SIDE, SIDE), dtype=bool)


def ellipse(x: float, y: float, a: float, b: float, turn: float = 0.0) -> np.ndarray:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    u, v = columns - x, rows - y
    along, across = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    return (along / a) ** 2 + (across / b) ** 2 < 1


def star() -> np.ndarray:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    angle, distance = np.arctan2(rows - 80, columns - 80), np.hypot(rows - 80, columns - 80)
    return distance < 38 + 7 * np.sin(13 * angle)


DISC = ellipse(80, 80, 30, 30)
BITE = DISC & ~ellipse(110, 80, 26, 26)
TWO = ellipse(40, 40, 16, 16) | ellipse(120, 120, 12, 12)


def test_forms_are_measured():
    disc, oval, rod = (shape_of(ellipse(80, 80, a, b), HERE) for a, b in ((30, 30), (40, 26), (60, 14)))

    assert [form(found) for found in (disc, oval, rod)] == ["round", "oval", "elongated"]
    assert disc.area == pytest.approx(np.pi * 30**2 / SIDE**2, rel=0.02)
    assert disc.solidity > 0.95
    assert disc.roughness < 0.03
    assert (symmetry(disc), symmetry(oval)) == ("symmetric", "symmetric")
    assert "irregular" in form(shape_of(BITE, HERE)) or form(shape_of(BITE, HERE)) == "lobed"
    assert shape_of(star(), HERE).roughness > 4 * disc.roughness + 0.1


@pytest.mark.parametrize(
    ("turn", "words"),
    [(0.0, "wider than tall"), (np.pi / 2, "taller than wide"), (0.8, "lying obliquely"), (-0.8, "lying obliquely")],
)  # fmt: skip
def test_long_forms_point_somewhere(turn, words):
    assert lie(shape_of(ellipse(80, 80, 50, 20, turn), HERE)) == words


def test_parts_are_counted_crumbs_are_not():
    found = shape_of(TWO, HERE)
    crumbs = DISC.copy()
    crumbs[5:9, 5:9] = True

    assert [side(centre) for centre in found.centres] == ["upper left", "lower right"]
    assert len(shape_of(crumbs, HERE).centres) == 1
    assert shape_of(np.zeros_like(DISC), HERE) is None


def test_what_the_frame_cuts_off_has_no_symmetry():
    found = shape_of(ellipse(0, 80, 40, 40), HERE)

    assert found.cut == ["left"]
    assert symmetry(found) == lie(found) == ""


def test_sizes_are_relative_within_bounds():
    tiny, broad = shape_of(ellipse(80, 80, 12, 12), HERE), shape_of(ellipse(80, 80, 55, 55), HERE)
    among_tiny, among_broad = cuts_of({"area": [0.001, 0.002, 0.003]}), cuts_of({"area": [0.8, 0.85, 0.9]})

    assert size(tiny, among_tiny) == "small", "1.8 % are not large, whatever the others are"
    assert size(broad, among_broad) == "large", "37 % are not small, whatever the others are"


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((0, 0, 0), "black"), ((255, 255, 255), "white"), ((75, 45, 35), "dark brown"), ((222, 155, 150), "pink"),
     ((200, 60, 55), "red"), ((170, 125, 95), "light brown"), ((105, 115, 140), "blue-grey")],
)  # fmt: skip
def test_colours_are_called_as_people_call_them(rgb, name):
    assert named(lab_of(np.array([rgb] * 10, dtype=np.uint8))) == [(name, 1.0)]


def test_a_look_is_measured_against_the_surroundings():
    rgb = np.full((SIDE, SIDE, 3), 150, np.uint8)
    rgb[DISC] = 40
    found = look_of(rgb, DISC, HERE)

    assert found.colourless
    assert found.lighter < -30
    assert found.echo < 0.4
    assert found.edge > 0.6
    assert found.patchy < 1


def test_an_endoscopes_black_frame_is_not_seen():
    rgb = np.full((SIDE, SIDE, 3), (200, 120, 100), np.uint8)
    rgb[~ellipse(80, 80, 78, 78)] = 0

    assert field_of_view(rgb).mean() == pytest.approx(np.pi / 4, abs=0.08)
    assert not look_of(rgb, None, field_of_view(rgb)).corners > 14


def record(number: int, mask: Any = None, label: str = "nv", text: str = "a dermoscopic image") -> Record:
    rng = np.random.default_rng(number)
    pixels = np.clip(rng.normal((222, 180, 170), 3, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    if mask is not None:
        pixels[mask] = np.clip(rng.normal((95, 60, 45), 6, (int(mask.sum()), 3)), 0, 255)
    shown = None if mask is None else Image.fromarray(mask.astype(np.uint8) * 255)
    return Record(
        f"r{number}", Image.fromarray(pixels), shown, Caption(text), label, "", "test" if number > 3 else "train"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write a set with one lesion, two, none, no mask at all, and a test split."""
    empty = np.zeros_like(DISC)
    write_shards(iter([record(n, m) for n, m in enumerate((DISC, TWO, empty, None, DISC))]), tmp_path / "set", info={})
    return tmp_path / "set"


def test_the_template_says_what_it_measured(root):
    caption_set(root, "template", {})
    one, two, none, whole = PreparedSet.open(root).split("train", captions="template").captions

    assert "round" in one.anatomy
    assert "in the centre" in one.anatomy
    assert "brown" in one.style
    assert "melanocytic nevus" in one.text
    assert "Dermoscopic image" in one.text
    assert one.label == "nv"
    assert "two" in two.anatomy
    assert "upper left" in two.anatomy
    assert none.anatomy.startswith("no ")
    assert "lesion" in none.anatomy
    assert "from left to right" in whole.anatomy
    sources = [line for line in place(root, "template").read_text().splitlines() if '"r3"' in line]
    assert "there is no mask" in sources[0]


def test_the_template_hangs_on_no_neighbour_and_on_its_options(root):
    made = CAPTIONERS.get("template")
    one, two = made(made.Config(noun="naevus", say_label=False)), made(made.Config())
    records = [record(0, DISC), record(1, TWO)]
    for captioner in (one, two):
        captioner.restore(captioner.fit(lambda: iter(records), []))

    assert two.caption(records) == [two.caption([one_record])[0] for one_record in records]
    assert "naevus" in one.caption(records)[0].caption.text
    assert "melanocytic" not in one.caption(records)[0].caption.text


def test_phrasings_vary_and_every_one_is_whole():
    made = CAPTIONERS.get("template")
    captioner = made(made.Config(modality="ultrasound"))
    answers = [captioner.caption([record(0, DISC)._replace(key=f"k{n}")])[0].caption for n in range(24)]

    assert len({answer.text.split()[3] for answer in answers}) > 1
    assert len({answer.anatomy for answer in answers}) >= 4
    assert not any("{" in answer.text or "  " in answer.text or ", ," in answer.text for answer in answers)


def test_the_smallest_picture_and_lesion_can_be_described():
    made = CAPTIONERS.get("template")
    captioner = made(made.Config())
    dot = np.zeros((SIDE, SIDE), dtype=bool)
    dot[3, 4] = True
    pixel = Record("p", Image.new("RGB", (1, 1)), Image.new("L", (1, 1), 255), Caption("x"))
    black = Record("b", Image.new("RGB", (9, 9)), None, Caption("x"))

    answers = captioner.caption([record(0, dot), record(1, HERE), pixel, black])

    assert all(answer.caption.text for answer in answers)


def test_class_label_fills_a_phrase(root):
    caption_set(root, "class_label", {"phrase": "skin with {label}", "names": {"nv": "a naevus"}}, name="phrase")
    prepared = PreparedSet.open(root)

    assert prepared.split("test", captions="phrase").captions[0].text == "skin with a naevus"
    assert prepared.split("test", captions="class_label").captions[0].text == "a photo of nv", "the built-in stays"
    with pytest.raises(ConfigError, match="without a table"):
        caption_set(root, "class_label", {})
    with pytest.raises(ConfigError, match="leave a place"):
        caption_set(root, "class_label", {"phrase": "skin"}, name="other")


def written(tmp_path: Path, text: str | bytes) -> dict[str, str]:
    path = tmp_path / "captions.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {"source": str(path)}


GOOD = "key,text,anatomy,style\n" + "".join(f'r{n},"Brown, round {n}",round,brown\n' for n in range(5))


def test_a_table_is_read(root, tmp_path):
    caption_set(root, "table", written(tmp_path, GOOD))

    assert PreparedSet.open(root).split("test", captions="table").captions == [
        Caption("Brown, round 4", "round", "brown", "nv")
    ]


def test_fields_alone_make_the_text(root, tmp_path):
    rows = "id,anatomy,style\n" + "".join(f"r{n},oval,نص\n" for n in range(5))
    caption_set(root, "table", written(tmp_path, rows))

    assert PreparedSet.open(root).split("test", captions="table").captions[0].text == "oval. نص"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD.replace("r4", "r5"), r"1 keys that the set does not have .*r5(?s:.*)1 records without a row .*r4"),
        (GOOD.replace('"Brown, round 2",round,brown', ",,"), "no words: 1, r2"),
        (GOOD.replace("round 2", "round\x002"), "control characters: 1, r2"),
        (GOOD.replace("r3,", "r2,"), "a key more than once: 1, r2"),
        (GOOD.replace("r3,", ","), "no key"),
        (GOOD.replace(",brown", ",brown,more", 1), "more or fewer values"),
        (GOOD.replace("key", "name"), "needs key"),
        ("", "no columns"),
        (GOOD.encode().replace(b"round 3", b"round \xff"), r"not UTF-8 \(line 5\)"),
        ('key,text\nr0,"open\n', "not a CSV"),
    ],
)
def test_what_a_table_cannot_hold_is_named(root, tmp_path, text, reason):
    with pytest.raises(DataError, match=reason):
        caption_set(root, "table", written(tmp_path, text))
    assert not place(root, "table").exists()


def test_gaps_can_be_allowed(root, tmp_path):
    options = {**written(tmp_path, GOOD.replace("r4", "r5")), "missing": "reject", "unknown": "ignore"}

    assert dict(caption_set(root, "table", options).rejected) == {"no row in the CSV": 1}


def test_ten_thousand_words_are_cut_and_counted(root, tmp_path):
    done = caption_set(root, "table", written(tmp_path, GOOD.replace("round 2", "word " * 10_000)))

    assert dict(done.notes) == {"cut to 200 words": 1}
    texts = [caption.text for caption in PreparedSet.open(root).split("train", captions="table").captions]
    assert max(len(text.split()) for text in texts) == 200


def test_a_table_that_changed_is_another(root, tmp_path):
    caption_set(root, "table", written(tmp_path, GOOD))

    with pytest.raises(DataError, match="inputs"):
        caption_set(root, "table", written(tmp_path, GOOD.replace("Brown", "Black")))
    with pytest.raises(MissingError, match="no such file"):
        caption_set(root, "table", {"source": str(tmp_path / "none.csv")}, name="none")
