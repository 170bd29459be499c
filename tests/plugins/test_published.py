"""Datasets as their publishers ship them: miniature trees of the same shape, and every way to spoil them."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anastyle import DATASETS, ConfigError, DataError, Dataset, MissingError, Record
from anastyle.cli import main
from anastyle.config import section
from anastyle.data.prepare import prepare
from anastyle.data.split import PreparedSet

SIZE = (24, 20)


def paint(path: Path, seed: int, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def outline(path: Path, *, left: int = 4, empty: bool = False, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size)
    if not empty:
        mask.paste(255, (left, 2, left + 8, 14))
    mask.save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def lesion(n: int, dx: str) -> dict[str, str]:
    words = {"dx_type": "histo", "age": "80.0", "sex": "male", "localization": "scalp"}
    return {"lesion_id": f"HAM_{n // 2:07d}", "image_id": f"ISIC_{n:07d}", "dx": dx, **words}


def ham10000(root: Path) -> Path:
    """Forty images of twenty lesions in two folders, masks in a third."""
    rows = [lesion(n, ("nv", "mel")[n % 4 // 2]) for n in range(40)]
    for n in range(40):
        paint(root / f"HAM10000_images_part_{1 + n // 20}/ISIC_{n:07d}.jpg", n)
        outline(root / f"HAM10000_segmentations_lesion_tschandl/ISIC_{n:07d}_segmentation.png")
    table(root / "HAM10000_metadata.csv", rows)
    return root


def kvasir_seg(root: Path) -> Path:
    """Ten frames; images and masks lie one folder down, as they are unpacked."""
    for n in range(10):
        paint(root / f"Kvasir-SEG/images/cju{n}.jpg", n)
        outline(root / f"Kvasir-SEG/masks/cju{n}.jpg")
    (root / "Kvasir-SEG/kavsir_bboxes.json").write_text("{}")
    return root


def busi(root: Path) -> Path:
    """Ten images of each kind; the first benign one has two masks, normal ones have empty masks."""
    for place, label in enumerate(("benign", "malignant", "normal")):
        for n in range(1, 11):
            paint(root / f"{label}/{label} ({n}).png", 100 * place + n)
            outline(root / f"{label}/{label} ({n})_mask.png", empty=label == "normal")
    outline(root / "benign/benign (1)_mask_1.png", left=14)
    return root


def isic(root: Path) -> Path:
    """The layout of 2019: a column per diagnosis, metadata beside it, two images a lesion."""
    names = [f"ISIC_{n:07d}{'_downsampled' if n % 3 == 0 else ''}" for n in range(20)]
    for n, name in enumerate(names):
        paint(root / f"ISIC_2019_Training_Input/{name}.jpg", n)
    hot = [{"image": name, "MEL": f"{n % 2}.0", "NV": f"{1 - n % 2}.0", "UNK": "0.0"} for n, name in enumerate(names)]
    table(root / "ISIC_2019_Training_GroundTruth.csv", hot)
    more = [{"image": name, "age_approx": "55", "lesion_id": f"L{n // 4}"} for n, name in enumerate(names)]
    table(root / "ISIC_2019_Training_Metadata.csv", more)
    return root


TREES = {"ham10000": ham10000, "kvasir_seg": kvasir_seg, "busi": busi, "isic": isic}
EXPECTED = {  # labels
    "ham10000": {"melanocytic_nevus": 20, "melanoma": 20},
    "kvasir_seg": {"polyp": 10},
    "busi": {"benign": 10, "malignant": 10, "normal": 10},
    "isic": {"melanoma": 10, "melanocytic_nevus": 10},
}


def dataset(name: str, source: Path, **options: object) -> Any:
    cls, config = section(DATASETS, {"name": name, "source": str(source), **options}, "data")
    return cls(config)


def records(name: str, source: Path, **options: object) -> list[Record]:
    return list(dataset(name, source, **options).records())


def rewrite(path: Path, change: Any) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table(path, change(rows))


@pytest.fixture(params=TREES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def source(name: str, tmp_path: Path) -> Path:
    return TREES[name](tmp_path / "raw")


def test_a_published_tree_is_prepared_and_left_alone(name: str, source: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}

    manifest = prepare(name, {"source": str(source)}, tmp_path / "set")

    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before
    opened = PreparedSet.open(tmp_path / "set")
    splits = [opened.split(side, image_size=16) for side in ("train", "validation", "test")]
    labels = Counter(split.class_names[label] for split in splits for label in split.labels.tolist())
    assert labels == EXPECTED[name]
    assert manifest.split_kind == "group"
    assert manifest.count("test") == pytest.approx(0.2 * sum(labels.values()), abs=2)
    assert manifest.count("validation") == pytest.approx(0.1 * sum(labels.values()), abs=2)
    groups = [set(split.groups) for split in splits]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert splits[0].has_masks == (name != "isic")


def test_a_random_split_is_stamped_leaky(name: str, source: Path, tmp_path: Path) -> None:
    assert prepare(name, {"source": str(source), "split": "random"}, tmp_path / "set").split_kind == "leaky"


def test_preparing_twice_gives_the_same_bytes(name: str, source: Path, tmp_path: Path) -> None:
    prints = {prepare(name, {"source": str(source)}, tmp_path / place).fingerprint for place in ("one", "two")}

    assert len(prints) == 1


def test_spoiled_images_are_told_at_once(name: str, source: Path, tmp_path: Path) -> None:
    first, second, third, *_ = sorted(
        path
        for path in source.rglob("*.*")
        if path.suffix in (".jpg", ".png") and "mask" not in str(path).lower() and "_segmentation" not in path.name
    )
    first.write_text("text renamed")
    second.write_bytes(second.read_bytes()[: second.stat().st_size // 2])
    Image.new("RGBA", SIZE, (1, 2, 3, 40)).save(third, "PNG")

    with pytest.raises(DataError) as caught:
        prepare(name, {"source": str(source)}, tmp_path / "out/set")

    message = str(caught.value)
    assert message.startswith(f"{source}: 3 problems")
    assert all(path.name in message for path in (first, second, third))
    assert len(message.splitlines()) <= 5
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".set.lock"]


def test_an_absent_an_empty_and_a_packed_source_say_how_to_get_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "set.zip").write_bytes(b"PK")
    obtain = DATASETS.get(name).obtain
    assert obtain
    for place, words in (("none", "no such folder"), ("empty", "empty"), ("set.zip", "unpack the archive")):
        with pytest.raises(MissingError) as caught:
            prepare(name, {"source": str(tmp_path / place)}, tmp_path / "out")
        assert words in str(caught.value)
        assert obtain in str(caught.value)
    with pytest.raises(ConfigError, match=r"data\.source"):
        prepare(name, {}, tmp_path / "out")


def test_check_tells_absent_data_and_accepts_what_is_there(
    name: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(f"name: trial\noutput: {tmp_path / 'runs'}\ndata: {{name: {name}, source: {tmp_path / 'none'}}}\n")

    assert main(["check", str(file)]) == 3
    error = capsys.readouterr().err
    assert f"data.source={tmp_path / 'none'}: no such folder. {DATASETS.get(name).obtain}" in error
    assert main(["check", str(file), f"data.source={source}"]) == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other/photo.jpg").write_text("x")
    assert main(["check", str(file), f"data.source={tmp_path / 'other'}"]) == 3
    assert "in it. " in capsys.readouterr().err


def test_images_of_one_lesion_stay_together_and_no_row_is_lost(tmp_path: Path) -> None:
    found = records("ham10000", ham10000(tmp_path))

    assert Counter(Counter(r.group for r in found).values()) == {2: 20}
    assert found[0].caption.text == "a dermoscopic image of melanocytic nevus"
    assert found[0].key == "ISIC_0000000"


def test_a_half_unpacked_set_is_refused_unless_that_is_meant(tmp_path: Path) -> None:
    ham10000(tmp_path)
    for path in (tmp_path / "HAM10000_images_part_2").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"20 problems.*\n.*a row without an image.*incomplete=true.*and 10 more"):
        records("ham10000", tmp_path)

    part = dataset("ham10000", tmp_path, incomplete=True)

    assert len(list(part.records())) == 20
    assert part.dropped["ISIC_0000039"] == "a row of the table without an image"
    assert part.dropped["HAM10000_segmentations_lesion_tschandl/ISIC_0000039_segmentation.png"] == (
        "a mask without its image"
    )


def test_every_dropped_file_is_named_with_its_reason(tmp_path: Path) -> None:
    ham10000(tmp_path / "ham")
    for path in ("extra/ISIC_9999999.jpg", "extra/overview.jpg"):
        paint(tmp_path / "ham" / path, 1)
    (tmp_path / "ham/.DS_Store").write_text("x")
    (tmp_path / "ham/LICENSE.txt").write_text("x")
    skin = dataset("ham10000", tmp_path / "ham")
    polyps = dataset("kvasir_seg", kvasir_seg(tmp_path / "kvasir"))
    archive = dataset("isic", isic(tmp_path / "isic"))
    table(tmp_path / "isic/other.csv", [{"site": "1"}])

    for one in (skin, polyps, archive):
        assert list(one.records())
    assert skin.dropped == {
        "extra/ISIC_9999999.jpg": "no row in the table",
        "extra/overview.jpg": "not named ISIC_<number>",
        ".DS_Store": "of the operating system",
        "LICENSE.txt": "not an image",
    }
    assert polyps.dropped == {"Kvasir-SEG/kavsir_bboxes.json": "boxes are not read"}
    assert archive.dropped == {"other.csv": "a table without ids"}


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("dx", "xyz", r"a diagnosis other than akiec, .*: ISIC_0000001 \(xyz\)"),
        ("image_id", "ISIC_0000002", "an id that comes more than once in the table: ISIC_0000002"),
    ],
)
def test_a_faulty_row_of_ham10000_is_named(tmp_path: Path, column: str, value: str, words: str) -> None:
    ham10000(tmp_path)
    rewrite(tmp_path / "HAM10000_metadata.csv", lambda rows: [rows[0], rows[1] | {column: value}, *rows[2:]])

    with pytest.raises(DataError, match=words):
        records("ham10000", tmp_path)


def test_a_table_without_a_needed_column_says_which(tmp_path: Path) -> None:
    ham10000(tmp_path / "ham")
    isic(tmp_path / "isic")
    without = lambda *names: lambda rows: [{k: v for k, v in row.items() if k not in names} for row in rows]  # noqa: E731
    rewrite(tmp_path / "ham/HAM10000_metadata.csv", without("dx", "lesion_id"))
    rewrite(tmp_path / "isic/ISIC_2019_Training_GroundTruth.csv", without("MEL", "NV", "UNK"))

    with pytest.raises(DataError, match="no column 'lesion_id', 'dx', only image_id, dx_type"):
        records("ham10000", tmp_path / "ham")
    with pytest.raises(DataError, match=r"no CSV has both an id .* and a diagnosis"):
        records("isic", tmp_path / "isic")


def test_a_table_with_tabs_is_read(tmp_path: Path) -> None:
    ham10000(tmp_path)
    text = (tmp_path / "HAM10000_metadata.csv").read_text()
    (tmp_path / "HAM10000_metadata.csv").rename(tmp_path / "HAM10000_metadata.tab").write_text(text.replace(",", "\t"))

    assert len(records("ham10000", tmp_path)) == 40


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    paint(ham10000(tmp_path) / "copy/ISIC_0000004.jpg", 4)

    with pytest.raises(DataError, match=r"two images of one name: HAM.*/ISIC_0000004\.jpg = copy/ISIC_0000004\.jpg"):
        records("ham10000", tmp_path)


def test_several_masks_of_an_ultrasound_image_are_merged(tmp_path: Path) -> None:
    one = dataset("busi", busi(tmp_path))
    (first,) = [record for record in one.records() if record.key == "benign_1"]

    assert np.flatnonzero(np.asarray(first.mask).any(axis=0)).tolist() == [*range(4, 12), *range(14, 22)]
    assert one.notes["merged masks"] == 1
    assert one.notes["empty masks"] == 10


def test_jpeg_masks_of_polyps_become_binary(tmp_path: Path) -> None:
    (first, *_) = records("kvasir_seg", kvasir_seg(tmp_path))

    mask = np.asarray(first.mask)
    assert set(np.unique(mask)) == {0, 255}
    assert mask[6, 8] == 255


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("ham10000", "HAM10000_segmentations_lesion_tschandl/ISIC_0000003_segmentation.png"),
        ("kvasir_seg", "Kvasir-SEG/masks/cju3.jpg"),
        ("busi", "malignant/malignant (3)_mask.png"),
    ],
)
def test_a_mask_that_is_absent_empty_or_of_another_size_is_named(tmp_path: Path, name: str, mask: str) -> None:
    root = TREES[name](tmp_path)
    (root / mask).unlink()
    with pytest.raises(DataError, match=r"no mask \(masks=optional does without\): .*3"):
        records(name, root)
    assert sum(record.mask is None for record in records(name, root, masks="optional")) == 1
    assert all(record.mask is None for record in records(name, root, masks="none"))

    outline(root / mask, empty=True)
    with pytest.raises(DataError) as caught:
        records(name, root)
    assert f"an empty mask: {mask}" in str(caught.value)

    outline(root / mask, size=(20, 24))
    with pytest.raises(DataError) as caught:
        records(name, root)
    assert f"a mask of another size than its image (20x24, not 24x20): {mask}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "mask"), [("kvasir_seg", "Kvasir-SEG/masks/cju99.jpg"), ("busi", "normal/x_mask.png")]
)
def test_a_mask_without_its_image_is_named(tmp_path: Path, name: str, mask: str) -> None:
    outline(TREES[name](tmp_path) / mask)

    with pytest.raises(DataError, match="a mask without its image"):
        records(name, tmp_path)


def test_a_class_without_any_mask_is_named(tmp_path: Path) -> None:
    for path in busi(tmp_path).glob("malignant/*_mask.png"):
        path.unlink()

    with pytest.raises(DataError, match=r"10 problems.*\n.*no mask .*malignant \(1\)\.png"):
        records("busi", tmp_path)


def test_the_lesions_and_labels_of_isic_come_from_several_tables(tmp_path: Path) -> None:
    outline(isic(tmp_path) / "masks/ISIC_0000001_Segmentation.png")
    found = {record.key: record for record in records("isic", tmp_path)}

    assert Counter(Counter(record.group for record in found.values()).values()) == {4: 5}
    assert found["ISIC_0000001"].label == "melanoma"
    assert found["ISIC_0000000_downsampled"].label == "melanocytic_nevus"
    assert [key for key, record in found.items() if record.mask is not None] == ["ISIC_0000001"]


def test_an_isic_archive_download_is_read_too(tmp_path: Path) -> None:
    rows = []
    for n in range(10):
        paint(tmp_path / f"ISIC_{n:07d}.jpg", n)
        diagnosis = ("Nevus", "", "")[n % 2]
        rows.append({"isic_id": f"ISIC_{n:07d}", "patient_id": f"IP_{n // 3}", "lesion_id": "", "diagnosis": diagnosis,
                     "diagnosis_1": ("Benign", "Malignant")[n % 2]})  # fmt: skip
    table(tmp_path / "metadata.csv", rows)

    found = records("isic", tmp_path)

    assert Counter(record.label for record in found) == {"nevus": 5, "malignant": 5}
    assert len({record.group for record in found}) == 4


def test_two_diagnoses_of_one_image_are_a_fault(tmp_path: Path) -> None:
    isic(tmp_path)
    rewrite(tmp_path / "ISIC_2019_Training_GroundTruth.csv", lambda rows: [rows[0] | {"MEL": "1.0"}, *rows[1:]])

    with pytest.raises(DataError, match="no diagnosis, or several: ISIC_0000000_downsampled"):
        records("isic", tmp_path)


def test_near_duplicates_are_kept_on_one_side_and_listed(tmp_path: Path) -> None:
    busi(tmp_path / "raw")
    for n in range(1, 11):  # every malignant image is a benign one, encoded again
        image = Image.open(tmp_path / f"raw/benign/benign ({n}).png").resize((96, 80), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"raw/benign/benign ({n}).png")
        image.resize((90, 76), Image.Resampling.BICUBIC).save(tmp_path / f"raw/malignant/malignant ({n}).png")
        outline(tmp_path / f"raw/benign/benign ({n})_mask.png", size=(96, 80))
        outline(tmp_path / f"raw/malignant/malignant ({n})_mask.png", size=(90, 76))
    (tmp_path / "raw/benign/benign (1)_mask_1.png").unlink()
    options = {"source": str(tmp_path / "raw")}

    joined = prepare("busi", options, tmp_path / "joined")
    reported = prepare("busi", {**options, "near_duplicates": "report"}, tmp_path / "reported")
    leaky = prepare("busi", {**options, "split": "random", "seed": 1}, tmp_path / "leaky")

    assert joined.notes["groups that near-duplicates or copies joined"] == 10
    assert joined.notes["near-duplicate pairs"] == joined.notes["near-duplicate pairs of contradictory labels"] == 10
    for manifest, place in ((joined, "joined"), (reported, "reported"), (leaky, "leaky")):
        with (tmp_path / place / "audit.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        across = [row for row in rows if row["split_a"] != row["split_b"]]
        assert len(rows) == 10
        assert manifest.notes.get("near-duplicate pairs across the split", 0) == len(across)
        assert bool(across) == (place != "joined")


def test_every_published_dataset_is_covered_here() -> None:
    published = {name for name in DATASETS.names() if DATASETS.get(name).obtain}

    assert published == set(TREES)
    assert issubclass(DATASETS.get("busi"), Dataset)
