"""Two folders of images: distances that mean something, and errors that say which files are wrong."""

import json

import numpy as np
import pytest
from PIL import Image

from anastyle import DataError
from anastyle.evaluation.folders import evaluate_folders


def fill(folder, count: int, *, seed: int, size: int = 32, blur: bool = False):
    """Write ``count`` blotchy images and return the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for at in range(count):
        coarse = Image.fromarray(rng.integers(60, 200, (size // 8, size // 8, 3), dtype=np.uint8)).resize((size, size))
        grain = 0 if blur else rng.normal(0, 12, (size, size, 3))
        Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(folder / f"{at}.png")
    return folder


def values(folder) -> dict:
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["values"]


def test_more_real_images_lie_at_the_floor_and_blurred_ones_do_not(tmp_path, capsys):
    real = fill(tmp_path / "real", 40, seed=0)
    more = fill(tmp_path / "more", 20, seed=1)
    blurred = fill(tmp_path / "blurred", 20, seed=1, blur=True)

    assert evaluate_folders(real, more, tmp_path / "a") == 0
    assert evaluate_folders(real, blurred, tmp_path / "b") == 0

    near, far = values(tmp_path / "a"), values(tmp_path / "b")
    assert set(near) == {"fd_highfreq", "fd_colour", "kid"}
    assert near["fd_highfreq"]["value"] < 2 * near["fd_highfreq"]["floor"]
    assert far["fd_highfreq"]["value"] > 10 * far["fd_highfreq"]["floor"]
    assert all("20 others of it" in value["protocol"] for value in near.values())
    printed = capsys.readouterr().out
    assert "20 images of" in printed
    assert "floor: real images against other real images" in printed
    assert "read the Fréchet distances against their floor" in printed


def test_without_an_output_folder_nothing_is_written(tmp_path):
    real, generated = fill(tmp_path / "real", 20, seed=0), fill(tmp_path / "generated", 10, seed=1)
    before = sorted(tmp_path.rglob("*"))

    evaluate_folders(real, generated, None)

    assert sorted(tmp_path.rglob("*")) == before


def test_images_of_several_sizes_are_brought_to_one_with_a_note(tmp_path, capsys):
    real, generated = fill(tmp_path / "real", 20, seed=0, size=48), fill(tmp_path / "generated", 10, seed=1, size=32)

    evaluate_folders(real, generated, None)

    assert "all were brought to 32 x 32" in capsys.readouterr().out


def test_files_that_are_no_images_are_all_named_and_text_beside_them_is_not(tmp_path):
    real, generated = fill(tmp_path / "real", 20, seed=0), fill(tmp_path / "generated", 10, seed=1)
    (generated / "broken.png").write_bytes(b"not an image")
    (generated / "model.bin").write_bytes(b"weights")
    (generated / "captions.csv").write_text("id,text\n")
    (generated / ".DS_Store").write_bytes(b"x")

    with pytest.raises(DataError) as error:
        evaluate_folders(real, generated, None)

    text = str(error.value)
    assert "2 files cannot be taken as images" in text
    assert "broken.png" in text
    assert "model.bin: not an image" in text
    assert "captions.csv" not in text


def test_too_few_images_and_a_missing_folder_are_refused(tmp_path):
    real = fill(tmp_path / "real", 20, seed=0)

    with pytest.raises(DataError, match="holds 9 images; a distance needs 10"):
        evaluate_folders(real, fill(tmp_path / "few", 9, seed=1), None)
    with pytest.raises(DataError, match="no such folder"):
        evaluate_folders(real, tmp_path / "none", None)
