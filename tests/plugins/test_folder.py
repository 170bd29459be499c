"""Any folder or CSV of images: what is found in it, how it is split, and what is refused."""

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anastyle import DATASETS, ConfigError, DataError, MissingError, Record
from anastyle.config import section
from anastyle.data.prepare import prepare
from anastyle.data.split import PreparedSet
from volume_files import dicom, nifti


def paint(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def paint_mask(path: Path, left: int = 2, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size)
    mask.paste(255, (left, 1, left + 2, 4))
    mask.save(path)
    return path


def table(source: Path, rows: list[dict[str, str]], name: str = "metadata.csv") -> None:
    with (source / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def records(source: Path, **options: object) -> list[Record]:
    cls, config = section(DATASETS, {"name": "folder", "source": str(source), **options}, "data")
    return list(cls(config).records())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twenty listed images of two labels, with masks; groups of two stand in attributes.csv."""
    folder = tmp_path / "raw"
    rows, attributes = [], []
    for n in range(20):
        name = f"case {n}"
        paint(folder / f"images/{n}.png", n, "L")
        paint_mask(folder / f"masks/{n}.png", left=n % 8)
        label = ("benign", "malignant")[n % 4 // 2]
        rows.append(
            {"id": name, "image": f"images/{n}.png", "mask": f"masks/{n}.png", "label": label, "text": f"One,\n{n}"}
        )
        attributes.append({"id": name, "group": f"patient {n // 2}", "age": "7"})
    table(folder, rows)
    table(folder, attributes, "attributes.csv")
    return folder


def test_a_listed_folder_becomes_records(source: Path) -> None:
    found = records(source)

    assert len(found) == 20
    assert found[3].key == "case_3"
    assert found[3].caption == ("One, 3", "", "", "malignant")
    assert found[3].image.mode == "RGB"
    assert found[3].mask is not None
    assert np.asarray(found[3].mask)[1, 3:5].tolist() == [255, 255]


def test_groups_from_the_attributes_stay_together_and_labels_are_split_alike(source: Path) -> None:
    found = records(source)

    sides = {r.group: r.split for r in found}
    assert len(sides) == 10
    assert all(r.split == sides[r.group] for r in found)
    for label in ("benign", "malignant"):
        assert sum(r.split == "test" for r in found if r.label == label) == 2
    assert [r.split for r in records(source)] == [r.split for r in found]
    assert any([r.split for r in records(source, seed=seed)] != [r.split for r in found] for seed in (1, 2, 3))


def test_a_random_split_is_stamped_leaky(source: Path, tmp_path: Path) -> None:
    manifest = prepare("folder", {"source": str(source), "split": "random"}, tmp_path / "set")

    assert manifest.split_kind == "leaky"
    assert manifest.count("test") == 4


def test_copies_of_one_file_stay_together(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for n in range(40):
        paint(raw / "nv" / f"{n}.png", n // 2)

    manifest = prepare("folder", {"source": str(raw)}, tmp_path / "set")

    assert (manifest.split_kind, manifest.count("test")) == ("group", 8)


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    sides = ["train", "test", "train", "train"]
    for n in range(4):
        paint(tmp_path / f"{n}.png", n)
    table(tmp_path, [{"image": f"{n}.png", "label": "nv", "split": side} for n, side in enumerate(sides)])

    assert [r.split for r in records(tmp_path)] == sides
    table(
        tmp_path, [{"image": f"{n}.png", "label": "nv", "split": s} for n, s in enumerate(["train", "val", "", "test"])]
    )
    with pytest.raises(DataError, match="other than train, validation or test: 1, 2"):
        records(tmp_path)


def test_validation_is_drawn_by_group_beside_an_unchanged_test_part(source: Path) -> None:
    two, three = (records(source, validation_share=share) for share in (0.0, 0.2))

    assert {r.split for r in two} == {"train", "test"}
    assert [r.key for r in two if r.split == "test"] == [r.key for r in three if r.split == "test"]
    assert [r.group for r in two] == [r.group for r in three]
    sides = {r.group: r.split for r in three}
    assert all(r.split == sides[r.group] for r in three)
    for label in ("benign", "malignant"):
        assert sum(r.split == "validation" for r in three if r.label == label) == 2


def test_a_given_validation_part_is_kept_and_else_drawn_from_training(tmp_path: Path) -> None:
    for n in range(30):
        paint(tmp_path / f"{n}.png", max(n, 12))  # the first thirteen are copies

    def split(sides: list[str], **options: object) -> list[str]:
        table(tmp_path, [{"image": f"{n}.png", "label": "nv", "split": side} for n, side in enumerate(sides)])
        return [r.split for r in records(tmp_path, **options)]

    given = ["train"] * 25 + ["validation"] * 2 + ["test"] * 3
    assert split(given) == given
    two = ["train"] * 25 + ["test"] * 5
    assert split(two, validation_share=0) == two
    drawn = split(two, validation_share=0.2)
    assert drawn[25:] == ["test"] * 5
    assert len(set(drawn[:13])) == 1
    assert drawn[:25].count("validation") == 5
    assert drawn == split(two, validation_share=0.2)


def test_a_given_part_that_leaks_into_validation_is_refused(tmp_path: Path) -> None:
    for n in range(4):
        paint(tmp_path / f"{n}.png", min(n, 2))
    sides = ("train", "test", "train", "validation")
    table(tmp_path, [{"image": f"{n}.png", "label": "nv", "split": side} for n, side in enumerate(sides)])

    with pytest.raises(DataError, match="1 leaks between the splits"):
        prepare("folder", {"source": str(tmp_path)}, tmp_path.parent / f"{tmp_path.name}-set")


def test_class_folders_give_labels_captions_and_masks(tmp_path: Path) -> None:
    paint(tmp_path / "benign/benign (1).png", 1)
    paint_mask(tmp_path / "benign/benign (1)_mask.png", left=0)
    paint_mask(tmp_path / "benign/benign (1)_mask_1.png", left=6)
    paint(tmp_path / "basal_cell/a.jpg", 2)
    (tmp_path / "basal_cell/a.txt").write_text("A pearly papule\n")
    (tmp_path / "basal_cell/Thumbs.db").write_bytes(b"x")
    cls, config = section(DATASETS, {"name": "folder", "source": str(tmp_path)}, "data")
    dataset = cls(config)

    second, first = dataset.records()

    assert (first.key, first.label, first.caption.text) == ("benign_benign_1", "benign", "a photo of benign")
    assert (second.key, second.label, second.caption.text) == ("basal_cell_a", "basal_cell", "A pearly papule")
    assert np.flatnonzero(np.asarray(first.mask).any(axis=0)).tolist() == [0, 1, 6, 7]
    assert second.mask is None
    assert dataset.dropped == {"basal_cell/Thumbs.db": "not an image"}
    assert dataset.notes["merged masks"] == 1


def test_images_beside_masks_are_paired_by_name(tmp_path: Path) -> None:
    paint(tmp_path / "images/polyp/x.jpg", 1)
    paint_mask(tmp_path / "masks/polyp/x.png")

    (found,) = records(tmp_path, masks="required")

    assert found.label == "polyp"
    assert found.mask is not None


def test_large_images_are_shrunk_with_their_masks(tmp_path: Path) -> None:
    paint(tmp_path / "nv/a.png", 1, size=(64, 32))
    paint_mask(tmp_path / "nv/a_mask.png", size=(64, 32))

    (found,) = records(tmp_path, max_side=16)

    assert found.image.size == found.mask.size == (16, 8)
    assert set(np.unique(np.asarray(found.mask))) == {0, 255}


def test_masks_can_be_left_out(source: Path) -> None:
    assert all(r.mask is None for r in records(source, masks="none"))


def test_every_fault_is_told_at_once_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    (source / "images/3.png").write_bytes((source / "images/3.png").read_bytes()[:60])
    (source / "images/4.png").write_text("text renamed")
    (source / "images/11.png").write_text("text renamed")
    (source / "masks/5.png").unlink()

    with pytest.raises(DataError) as caught:
        prepare("folder", {"source": str(source)}, tmp_path / "out/set")

    message = str(caught.value)
    assert message.startswith(f"{source}: 4 problems")
    assert "not a PNG, JPEG, TIFF, BMP or WebP image: images/4.png, images/11.png" in message
    assert "no such file: masks/5.png" in message
    assert "damaged" in message
    assert "images/3.png" in message
    assert len(message.splitlines()) <= 5
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".set.lock"]


def test_many_kinds_of_fault_stay_within_five_lines(source: Path) -> None:
    for n in range(14):
        (source / f"images/{n}.png").write_text("x")
    for n, (mode, kind) in enumerate((("I;16", "PNG"), ("F", "TIFF"), ("RGBA", "PNG")), start=14):
        Image.new(mode, (12, 10)).save(source / f"images/{n}.png", kind)

    with pytest.raises(DataError) as caught:
        records(source)

    message = str(caught.value)
    assert "17 problems" in message
    assert "and 4 more" in message
    assert "and 1 more" in message.splitlines()[-1]
    assert len(message.splitlines()) == 5


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("text", "", "no caption: case_1"),
        ("label", "", "no label: case_1"),
        ("id", "case 2", "an id that comes more than once: case_2"),
        ("image", "", "no image named: case 1"),
        ("image", "images/nowhere.png", r"no such file: images/nowhere\.png"),
        ("text", "with a \x00 in it", "control characters in the caption: case_1"),
    ],
)
def test_a_faulty_row_is_named(source: Path, column: str, value: str, words: str) -> None:
    with (source / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[1][column] = value
    table(source, rows)

    with pytest.raises(DataError, match=words):
        records(source)


def test_missing_masks_are_an_error_where_they_are_required(source: Path) -> None:
    with (source / "metadata.csv").open(newline="") as file:
        rows = [
            row | {"mask": "" if row["id"] in ("case 1", "case 9") else row["mask"]} for row in csv.DictReader(file)
        ]
    table(source, rows)

    assert sum(r.mask is None for r in records(source)) == 2
    with pytest.raises(DataError, match=r"no mask .*: images/1\.png, images/9\.png"):
        records(source, masks="required")


def test_a_mask_without_its_image_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "nv/a.png", 1)
    paint_mask(tmp_path / "nv/b_mask.png")

    with pytest.raises(DataError, match=r"a mask without its image: nv/b_mask\.png"):
        records(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"id,picture\n1,a.png\n", "no column 'image', only id, picture"),
        ("image,text\na.png,größer\n".encode("latin-1"), "not UTF-8"),
        (b"image,text\na.png,one, two\n", "do not fit the columns.*\n.*line 2"),
        (b"image,text\n", "no image in it"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "metadata.csv").write_bytes(content)

    with pytest.raises(DataError, match=words):
        records(tmp_path)


def test_an_empty_a_missing_and_an_unnamed_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image in it"):
        records(tmp_path)
    with pytest.raises(MissingError, match="no such folder"):
        prepare("folder", {"source": str(tmp_path / "none")}, tmp_path / "set")
    with pytest.raises(ConfigError, match=r"data\.source"):
        prepare("folder", {}, tmp_path / "set")
    with pytest.raises(ConfigError, match="test_share"):
        records(tmp_path, test_share=1.5)
    with pytest.raises(ConfigError, match=r"validation_share: 0\.8 is not from 0 to below"):
        records(tmp_path, validation_share=0.8)


def test_unlabelled_images_without_words_are_refused(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match="no caption: a"):
        records(tmp_path)

    (tmp_path / "a.txt").write_text("A lesion")
    prepare("folder", {"source": str(tmp_path)}, tmp_path.parent / f"{tmp_path.name}-set")
    assert PreparedSet.open(tmp_path.parent / f"{tmp_path.name}-set").classes == ["unlabelled"]


def test_a_changed_source_is_another_set(source: Path, tmp_path: Path) -> None:
    options = {"source": str(source)}
    prepare("folder", options, tmp_path / "set")
    prepare("folder", options, tmp_path / "set")
    paint(source / "images/0.png", 99, "L")

    with pytest.raises(DataError, match="holds another set"):
        prepare("folder", options, tmp_path / "set")


def test_the_source_is_left_alone(source: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}

    prepare("folder", {"source": str(source)}, tmp_path / "set")

    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before


def test_a_volume_gives_its_slices_and_no_word_about_the_patient(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "raw/ct").mkdir(parents=True)
    (tmp_path / "raw/mr").mkdir()
    for n in range(2):
        dicom(tmp_path / f"raw/ct/scan{n}.dcm", rng.integers(0, 4096, (9, 20, 24), np.uint16))
    volume = rng.random((20, 24, 8)).astype(np.float32)
    nifti(tmp_path / "raw/mr/head.nii.gz", volume)
    nifti(tmp_path / "raw/mr/head_mask.nii.gz", (volume > 0.5).astype(np.uint8))

    middle = records(tmp_path / "raw")
    found = records(tmp_path / "raw", slice_every=4)

    assert [r.key for r in middle] == ["ct_scan0_s0004", "ct_scan1_s0004", "mr_head_s0004"]
    assert len({r.group for r in middle}) == 2  # one DICOM patient, one NIfTI volume
    assert Counter(r.label for r in found) == {"ct": 6, "mr": 2}
    head = next(r for r in found if r.label == "mr")
    assert np.asarray(head.mask).mean() == pytest.approx(127, abs=20)
    prepare("folder", {"source": str(tmp_path / "raw"), "slice_every": 4}, tmp_path / "set")
    written = b"".join(path.read_bytes() for path in (tmp_path / "set").iterdir())
    assert b"secret" not in written
    assert b"Jane" not in written


def test_without_the_extra_every_volume_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    (tmp_path / "ct").mkdir()
    for n in range(2):
        (tmp_path / f"ct/{n}.dcm").write_bytes(b"x")

    with pytest.raises(DataError, match=r"2 problems.*\n.*anastyle\[dicom\].*ct/0\.dcm, ct/1\.dcm"):
        records(tmp_path)


@pytest.mark.parametrize("option", [{"slice_axis": 3}, {"slice_every": -1}, {"window": [3.0]}])
def test_options_of_volumes_are_checked(tmp_path: Path, option: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        records(tmp_path, **option)


def test_captions_of_every_kind_are_kept_refused_or_counted(tmp_path: Path) -> None:
    for n in range(4):
        paint(tmp_path / f"nv/{n}.png", n)
    (tmp_path / "nv/0.txt").write_text("آفة جلدية داكنة", encoding="utf-8")  # right to left
    (tmp_path / "nv/1.txt").write_text("word " * 10_000)
    cls, config = section(DATASETS, {"name": "folder", "source": str(tmp_path)}, "data")
    dataset = cls(config)

    found = list(dataset.records())

    assert found[0].caption.text == "آفة جلدية داكنة"
    assert dataset.notes["captions that no embedder reads to the end"] == 1
    (tmp_path / "nv/2.txt").write_bytes("größer".encode("latin-1"))
    (tmp_path / "nv/3.txt").write_bytes(b"with a \0 in it")
    with pytest.raises(DataError, match=r"not UTF-8: nv_2\n.*control characters in the caption: nv_3"):
        records(tmp_path)


def test_an_empty_mask_is_counted_or_allowed_to_one_label(tmp_path: Path) -> None:
    for label in ("benign", "normal"):
        paint(tmp_path / f"{label}/a.png", len(label))
        Image.new("L", (12, 10)).save(tmp_path / f"{label}/a_mask.png")

    assert len(records(tmp_path)) == 2
    with pytest.raises(DataError, match=r"1 problems.*\n.*an empty mask: benign/a_mask\.png"):
        records(tmp_path, normal="normal")


def test_a_class_in_test_alone_is_refused_and_a_small_one_counted(tmp_path: Path) -> None:
    for n in range(6):
        paint(tmp_path / f"{n}.png", n)
    rows = [{"image": f"{n}.png", "label": "nv" if n else "mel", "split": ("train", "test")[n < 2]} for n in range(6)]
    table(tmp_path, rows)

    with pytest.raises(DataError, match="a class in test alone: mel"):
        records(tmp_path)
    table(tmp_path, [{**row, "split": "train" if n else "validation"} for n, row in enumerate(rows)])
    with pytest.raises(DataError, match="a class in validation alone: mel"):
        records(tmp_path)

    table(tmp_path, [{name: value for name, value in row.items() if name != "split"} for row in rows])
    assert prepare("folder", {"source": str(tmp_path)}, tmp_path.parent / f"{tmp_path.name}-set").notes[
        "classes too small to be tested"
    ]


def test_image_and_mask_are_turned_together(tmp_path: Path) -> None:
    mask = paint_mask(tmp_path / "masks/nv/a.png", left=2, size=(12, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images/nv").mkdir(parents=True)
    Image.open(mask).save(tmp_path / "images/nv/a.png", exif=exif)

    (found,) = records(tmp_path)

    assert found.image.size == (10, 12)
    assert np.array_equal(np.asarray(found.mask), np.asarray(found.image)[..., 0])


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "I;16"])
def test_what_8_bit_rgb_holds_is_taken_and_the_rest_refused(tmp_path: Path, mode: str) -> None:
    (tmp_path / "nv").mkdir()
    picture = Image.new(mode, (12, 10), {"RGBA": (9, 8, 7, 255), "CMYK": (0, 255, 255, 0), "I;16": 4000}[mode])
    picture.save(tmp_path / "nv/a.tif")
    if mode == "I;16":
        with pytest.raises(DataError, match=r"16-bit pixels.*nv/a\.tif"):
            records(tmp_path)
    else:
        (found,) = records(tmp_path)
        assert found.image.getpixel((0, 0)) == {"RGBA": (9, 8, 7), "CMYK": (255, 0, 0)}[mode]
