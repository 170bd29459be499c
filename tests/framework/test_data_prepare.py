"""From a dataset to a prepared set: by group, whole, and never over something else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anastyle import Caption, ConfigError, DataError, Dataset, MissingError, Record
from anastyle.data import prepare as module
from anastyle.data.prepare import draw_groups, prepare, prepared
from anastyle.data.split import PreparedSet

PHANTOM = {"train": 6, "validation": 2, "test": 3, "image_size": 16}


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """A list whose records are those of the dataset 'fake'."""
    content: list[Record] = []

    class Fake(Dataset):
        @dataclass
        class Config(Dataset.Config):
            seed: int = 0

        def records(self) -> Iterator[Record]:
            yield from content

    real = module.section
    fake = lambda registry, mapping, where: (  # noqa: E731
        (Fake, Fake.Config()) if mapping["name"] == "fake" else real(registry, mapping, where)
    )
    monkeypatch.setattr(module, "section", fake)
    return content


def record(number: int, **changes: str) -> Record:
    image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8))
    return Record(f"r{number}", image, None, Caption("x"), "nv")._replace(**changes)


def groups_of(folder: Path) -> dict[str, set[str]]:
    """Return the groups of each part of a prepared set."""
    opened = PreparedSet.open(folder)
    return {name: set(opened.split(name).groups) for name in opened.manifest.splits}


def test_groups_stay_in_one_part_of_a_drawn_split(dataset: list[Record], tmp_path: Path) -> None:
    dataset += [record(n, group=f"patient{n // 4}") for n in range(200)]

    manifest = prepare("fake", {}, tmp_path / "set")

    assert manifest.split_kind == "group"
    assert 20 <= manifest.count("test") <= 60
    assert 8 <= manifest.count("validation") <= 40
    parts = groups_of(tmp_path / "set")
    assert set(parts) == {"train", "validation", "test"}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 50


def test_the_test_part_is_the_same_with_and_without_validation(
    dataset: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset += [record(n, group=f"patient{n // 4}") for n in range(200)]
    three = prepare("fake", {}, tmp_path / "three")
    monkeypatch.setattr(Dataset, "draws_validation", False)
    two = prepare("fake", {}, tmp_path / "two")

    first, second = (next(shard for shard in made.shards if shard.split == "test") for made in (three, two))
    assert first == second
    assert (two.splits, two.count("train")) == (["train", "test"], three.count("train") + three.count("validation"))


def test_validation_is_drawn_from_a_given_training_part_alone(dataset: list[Record], tmp_path: Path) -> None:
    dataset += [record(n, group=f"patient{n // 4}", split="test" if n < 80 else "train") for n in range(400)]

    manifest = prepare("fake", {}, tmp_path / "set")

    assert manifest.split_kind == "given"
    assert manifest.count("test") == 80
    assert 12 <= manifest.count("validation") <= 60
    parts = groups_of(tmp_path / "set")
    assert parts["test"] == {f"patient{n}" for n in range(20)}
    assert not parts["train"] & parts["validation"]


def test_a_given_validation_part_is_kept(dataset: list[Record], tmp_path: Path) -> None:
    sides = ["train"] * 60 + ["validation"] * 2 + ["test"] * 3
    dataset += [record(n, split=side) for n, side in enumerate(sides)]

    manifest = prepare("fake", {}, tmp_path / "set")

    assert {name: manifest.count(name) for name in manifest.splits} == {"train": 60, "validation": 2, "test": 3}
    assert PreparedSet.open(tmp_path / "set").split("validation").keys == ["r60", "r61"]


@pytest.mark.parametrize(
    ("twin", "words"),
    [({"group": "g"}, "group 'g'"), ({"image": "same"}, "the same image: r1 = r2")],
)
@pytest.mark.parametrize("sides", [("train", "test"), ("train", "validation"), ("validation", "test")])
def test_given_splits_that_leak_are_refused(
    dataset: list[Record], tmp_path: Path, sides: tuple[str, str], twin: dict, words: str
) -> None:
    first, second = (record(n, split=side, group=twin.get("group", "")) for n, side in enumerate(sides, start=1))
    if "image" in twin:
        second = second._replace(image=first.image)
    dataset += [first, second, record(3, split="validation")]

    with pytest.raises(DataError, match=f"1 leaks between the splits.*\n.*{words}"):
        prepare("fake", {}, tmp_path / "set")

    assert not (tmp_path / "set").exists()


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    first = prepare("phantom", PHANTOM, tmp_path / "set")
    stamp = (tmp_path / "set" / "manifest.json").stat().st_mtime_ns

    assert prepare("phantom", PHANTOM, tmp_path / "set") == first
    assert (tmp_path / "set" / "manifest.json").stat().st_mtime_ns == stamp
    assert first.count("train") == 6
    assert first.classes == ["dermoscopy", "endoscopy", "ultrasound"]
    assert first.anatomy_factors == ["shape", "symmetry", "boundary", "size", "place"]


def test_what_is_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
    prepare("phantom", PHANTOM, tmp_path / "set")
    with pytest.raises(DataError, match="holds another set"):
        prepare("phantom", {**PHANTOM, "seed": 1}, tmp_path / "set")

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("dear")
    (tmp_path / "file").write_text("dear")
    for name in ("mine", "file"):
        with pytest.raises(DataError, match="in the way") as caught:
            prepare("phantom", PHANTOM, tmp_path / name)
        assert len(str(caught.value).splitlines()) <= 5

    (tmp_path / "set" / "test-000000.tar").unlink()
    with pytest.raises(DataError, match=r"test-000000\.tar: missing"):
        prepare("phantom", PHANTOM, tmp_path / "set")


def test_an_empty_folder_and_what_a_killed_process_left_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / ".set.partial-1").mkdir()

    prepare("phantom", PHANTOM, tmp_path / "set")

    assert not (tmp_path / ".set.partial-1").exists()
    PreparedSet.open(tmp_path / "set").verify()


def test_unknown_datasets_and_options_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'phantom'"):
        prepare("fantom", {}, tmp_path / "set")
    with pytest.raises(ConfigError, match="trian"):
        prepare("phantom", {"trian": 3}, tmp_path / "set")

    assert not (tmp_path / "set").exists()


def test_a_data_section_is_prepared_on_first_use(tmp_path: Path) -> None:
    section = {"name": "phantom", "root": None, "captions": "attributes", **PHANTOM}

    first, second = prepared(section, tmp_path), prepared(section, tmp_path)
    other = prepared({**section, "captions": "class_label"}, tmp_path)
    larger = prepared({**section, "image_size": 20}, tmp_path)

    assert first.root == second.root == other.root != larger.root
    assert first.root.parent == tmp_path / "data"
    assert first.root.name.startswith("phantom-")
    assert larger.split("train", image_size=20).image(0).shape == (3, 20, 20)
    with pytest.raises(ConfigError, match="trian"):
        prepared({**section, "trian": 3}, tmp_path)


def test_a_root_is_opened_and_a_missing_one_says_what_to_run(tmp_path: Path) -> None:
    prepare("phantom", PHANTOM, tmp_path / "set")

    assert prepared({"root": str(tmp_path / "set"), "name": "phantom"}, tmp_path / "out").manifest.count("train") == 6
    assert not (tmp_path / "out" / "data").exists()
    with pytest.raises(MissingError, match="anastyle prepare folder SOURCE") as caught:
        prepared({"root": str(tmp_path / "none")}, tmp_path)
    assert caught.value.exit_code == 3
    with pytest.raises(ConfigError, match="'name', or the 'root'"):
        prepared({"image_size": 64}, tmp_path)


def test_groups_are_drawn_up_to_a_number_of_images_and_hardly_others_when_the_set_grows() -> None:
    sizes = {f"g{n}": 1 + n % 5 for n in range(200)}

    taken = draw_groups(sizes, 120, seed=0)
    grown = draw_groups({**sizes, "new": 1}, 120.2, seed=0)

    assert abs(sum(sizes[group] for group in taken) - 120) <= 2.5
    assert len(taken ^ grown) <= 2
    assert draw_groups(sizes, 120, seed=1) != taken
    assert draw_groups({"all": 9}, 1.8, seed=0) == set()


def test_a_linked_set_says_how_its_style_follows_and_an_unlinked_one_nothing(tmp_path: Path) -> None:
    prepare("phantom", {**PHANTOM, "linked": 1.0}, tmp_path / "linked")
    prepare("phantom", PHANTOM, tmp_path / "plain")
    linked, plain = (PreparedSet.open(tmp_path / name) for name in ("linked", "plain"))

    assert linked.manifest.splits == ["train", "validation", "test", "instruments"]
    assert linked.manifest.count("instruments") == 6
    assert linked.links["noise"] == {"follows": "symmetry", "values": {"symmetric": "clean", "asymmetric": "grainy"}}
    assert {style: link["follows"] for style, link in linked.links.items()} == {
        "palette": "shape", "texture": "boundary", "lighting": "size", "noise": "symmetry",
    }  # fmt: skip
    assert plain.links == {}
    assert "links" not in (tmp_path / "plain/manifest.json").read_text()
    held_out = [{s.split: s.sha256 for s in opened.manifest.shards if s.split in ("validation", "test")}
                for opened in (linked, plain)]  # fmt: skip
    assert held_out[0] == held_out[1]


def test_instruments_may_learn_from_training_images_and_from_no_others(dataset: list[Record], tmp_path: Path) -> None:
    shared = record(1).image
    dataset += [record(1, split="train", group="g"), record(2, split="instruments", group="g")._replace(image=shared)]
    dataset += [record(3, split="validation"), record(4, split="test")]

    assert prepare("fake", {}, tmp_path / "set").notes == {"near-duplicate pairs": 1}

    dataset.append(record(5, split="instruments", group="r4"))
    with pytest.raises(DataError, match=r"1 leaks between the splits.*\n.*group 'r4'"):
        prepare("fake", {}, tmp_path / "other")
