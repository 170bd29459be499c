"""From a dataset to a prepared set: by group, whole, and never over something else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anastyle import Caption, ConfigError, DataError, Dataset, MissingError, Record
from anastyle.data import prepare as module
from anastyle.data.prepare import draw_test, prepare, prepared
from anastyle.data.split import PreparedSet

PHANTOM = {"train": 6, "test": 3, "image_size": 16}


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


def test_groups_stay_on_one_side_of_a_drawn_split(dataset: list[Record], tmp_path: Path) -> None:
    dataset += [record(n, group=f"patient{n // 4}") for n in range(200)]

    manifest = prepare("fake", {}, tmp_path / "set")

    assert manifest.split_kind == "group"
    assert 20 <= manifest.count("test") <= 60
    sides = [set(PreparedSet.open(tmp_path / "set").split(name).groups) for name in ("train", "test")]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 50


@pytest.mark.parametrize(
    ("twin", "words"),
    [({"group": "g"}, "group 'g'"), ({"image": "same"}, "the same image: r1 = r2")],
)
def test_given_splits_that_leak_are_refused(dataset: list[Record], tmp_path: Path, twin: dict, words: str) -> None:
    second = record(2, split="test", group=twin.get("group", ""))
    if "image" in twin:
        second = second._replace(image=record(1).image)
    dataset += [record(1, split="train", group=twin.get("group", "")), second]

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


def test_draw_test_takes_its_share_of_images_and_hardly_moves_when_the_set_grows() -> None:
    sizes = {f"g{n}": 1 + n % 5 for n in range(200)}

    taken = draw_test(sizes, 0.2, seed=0)
    grown = draw_test({**sizes, "new": 1}, 0.2, seed=0)

    assert abs(sum(sizes[group] for group in taken) / sum(sizes.values()) - 0.2) < 0.01
    assert len(taken ^ grown) <= 2
    assert draw_test(sizes, 0.2, seed=1) != taken
    assert draw_test({"all": 9}, 0.2, seed=0) == set()
