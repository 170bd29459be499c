"""Near-duplicates: planted ones are found, lookalikes are not, and a prepared set says where they lie."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from anastyle import Caption, Dataset, Record
from anastyle.data import prepare as module
from anastyle.data.audit import Audit
from anastyle.data.prepare import prepare


def tissue(seed: int, size: int = 160) -> Image.Image:
    """Return a textured picture with a dark spot in the middle: as wholes, all of them correlate."""
    rng = np.random.default_rng(seed)
    texture = sum(
        weight * np.asarray(Image.fromarray(rng.normal(size=(n, n)).astype(np.float32)).resize((size, size)))
        for n, weight in ((12, 11), (30, 9))
    )
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    spot = 110 * np.exp(-(x**2 + y**2) / 0.18)
    pixels = np.clip(190 - spot + texture, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert("RGB")


def jpeg(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(BytesIO(buffer.getvalue())).convert("RGB")


def marked(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.paste((255, 255, 0), (20, 60, 120, 62))
    return copy


CHANGES = {
    "as it is": lambda image: image,
    "encoded again": jpeg,
    "smaller": lambda image: image.resize((110, 115)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "cropped": lambda image: image.crop((6, 6, 157, 157)),
    "shifted": lambda image: image.crop((8, 0, 160, 152)),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "calipers drawn on it": marked,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_planted_copy_is_found_and_nothing_else(change) -> None:
    audit = Audit()
    for seed in range(30):
        audit.add(f"image {seed}", tissue(seed))
    for seed in (3, 17):
        audit.add(f"copy {seed}", change(tissue(seed)))

    assert [(twin.first, twin.second) for twin in audit.twins()] == [("image 3", "copy 3"), ("image 17", "copy 17")]


def test_wholes_that_correlate_are_not_the_same_picture() -> None:
    small = [np.asarray(tissue(seed).convert("L").resize((48, 48)), float).ravel() for seed in (1, 2)]

    assert np.corrcoef(small)[0, 1] > 0.85  # what a plain thumbnail says


def test_even_pictures_are_no_duplicates_of_each_other() -> None:
    audit = Audit()
    for shade in range(0, 200, 20):
        audit.add(str(shade), Image.new("RGB", (90, 70), (shade, shade, shade)))

    assert audit.twins() == []
    assert Audit().twins() == []


def test_the_answer_does_not_hang_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    audit = Audit()
    for seed in range(24):
        audit.add(str(seed), tissue(seed % 15))
    whole = audit.twins()
    monkeypatch.setattr("anastyle.data.audit.BLOCK", 5)
    monkeypatch.setattr("anastyle.data.audit.BATCH", 2)

    assert len(whole) == 9
    assert audit.twins() == whole


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> type[Dataset]:
    """A dataset 'given' whose splits are given: 1 and 2 leak, 3 and 4 agree in all but the label, 5 is alone."""

    class Given(Dataset):
        @dataclass
        class Config(Dataset.Config):
            pass

        draws_validation = False

        def records(self) -> Iterator[Record]:
            for key, seed, split, label in (
                ("one", 1, "train", "nv"),
                ("two", 1, "test", "nv"),
                ("three", 2, "train", "nv"),
                ("four", 2, "train", "mel"),
                ("five", 3, "test", "mel"),
            ):
                image = jpeg(tissue(seed)) if key == "two" else tissue(seed)
                yield Record(key, image, None, Caption("x"), label, split=split)

    monkeypatch.setattr(module, "section", lambda *_, **__: (Given, Given.Config()))
    return Given


def test_given_splits_are_reported_and_stamped(given: type[Dataset], tmp_path: Path) -> None:
    manifest = prepare("given", {}, tmp_path / "set")

    assert manifest.split_kind == "given"
    assert manifest.notes == {
        "near-duplicate pairs": 2,
        "near-duplicate pairs across the split": 1,
        "near-duplicate pairs of contradictory labels": 1,
    }
    with (tmp_path / "set/audit.csv").open(newline="") as file:
        across, contrary = csv.DictReader(file)
    assert (across["key_a"], across["key_b"], across["split_a"], across["split_b"]) == ("one", "two", "train", "test")
    assert across["kind"] == "near"
    assert 0.8 < float(across["correlation"]) <= 1
    assert (contrary["label_a"], contrary["label_b"], contrary["kind"]) == ("nv", "mel", "identical")


def test_the_same_input_gives_the_same_bytes(given: type[Dataset], tmp_path: Path) -> None:
    for name in ("one", "two"):
        prepare("given", {}, tmp_path / name)

    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_dataset_of_drawn_images_is_not_audited(given: type[Dataset], tmp_path: Path) -> None:
    given.audited = False

    assert prepare("given", {}, tmp_path / "set").notes == {}
    assert not (tmp_path / "set/audit.csv").exists()
