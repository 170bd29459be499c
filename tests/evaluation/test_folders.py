"""Two folders of images: distances that mean something, and errors that say which files are wrong."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from anastyle import FEATURES, ConfigError, DataError, MissingError
from anastyle.errors import GateError
from anastyle.evaluation.choices import read_choices
from anastyle.evaluation.folders import evaluate_folders
from anastyle.evaluation.values import Value

SHARES = ("precision", "recall", "density", "coverage")


def fill(folder, count: int, *, seed: int, size: int = 32, blur: bool = False):
    """Write ``count`` blotchy images and return the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for at in range(count):
        coarse = Image.fromarray(rng.integers(60, 200, (size // 8, size // 8, 3), dtype=np.uint8)).resize((size, size))
        grain = 0 if blur else rng.normal(0, 12, (size, size, 3))
        Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(folder / f"{at}.png")
    return folder


def measured(real, generated, output, *words: str) -> dict:
    """Evaluate two folders and return what was written."""
    assert evaluate_folders(real, generated, read_choices([f"output={output}", "draws=20", *words])) == 0
    return json.loads((output / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture
def pair(tmp_path):
    return fill(tmp_path / "real", 40, seed=0), fill(tmp_path / "generated", 20, seed=1)


def test_more_real_images_lie_at_the_floor_and_blurred_ones_do_not(pair, tmp_path, capsys):
    blurred = fill(tmp_path / "blurred", 20, seed=1, blur=True)

    near, far = (measured(pair[0], some, tmp_path / some.name)["values"] for some in (pair[1], blurred))

    assert set(near) == {
        "fd_highfreq", "fd_colour", "kid_colour", *(f"{name}_{on}" for name in SHARES for on in ("highfreq", "colour")),
    }  # fmt: skip
    assert near["fd_highfreq"]["value"] < 2 * near["fd_highfreq"]["floor"]
    assert far["fd_highfreq"]["low"] > 10 * far["fd_highfreq"]["floor"]
    assert far["precision_highfreq"]["value"] < 0.5 * near["precision_highfreq"]["value"]
    assert all("20 others of it" in value["protocol"] for value in near.values())
    printed = capsys.readouterr().out
    assert "20 images of" in printed
    assert "no pretrained network was named" in printed
    assert "read the Fréchet distances against their floor" in printed


def test_the_table_is_written_three_times_with_every_protocol(pair, tmp_path, capsys):
    found = measured(*pair, tmp_path / "out")
    lines = list(csv.DictReader((tmp_path / "out" / "evaluation.csv").open(encoding="utf-8")))
    markdown = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    printed = capsys.readouterr().out

    values = {key: Value(**{name: one for name, one in value.items() if name != "hash"})
              for key, value in found["values"].items()}  # fmt: skip
    assert len(lines) == len(values) == 11
    recall = next(line for line in lines if (line["features"], line["number"]) == ("colour", "recall"))
    assert float(recall["value"]) == values["recall_colour"].value
    assert recall["card"] == values["recall_colour"].hash == found["values"]["recall_colour"]["hash"]
    for value in values.values():
        assert f"- {value.hash}: {value.protocol}." in markdown
    for table in (markdown, printed):
        assert "nan" not in table.lower()
        assert "recall ↑" in table
        assert "kernel distance ↓" in table


def test_a_folder_against_itself_is_called_out(pair, tmp_path):
    real, generated = pair
    for file in list(real.iterdir())[:5]:
        shutil.copy(file, generated / f"copied-{file.name}")

    itself, partly = (measured(real, some, tmp_path / "out")["notes"] for some in (real, generated))

    assert any("40 of the 40 generated files are byte-for-byte in both folders" in note for note in itself)
    assert any("5 of the 25 generated files are byte-for-byte" in note for note in partly)


def test_images_of_several_sizes_are_brought_to_one_with_a_note(tmp_path):
    real, generated = fill(tmp_path / "real", 20, seed=0, size=48), fill(tmp_path / "generated", 20, seed=1, size=32)

    both, smaller = (measured(real, generated, tmp_path / "out", *words) for words in ((), ("max_side=24",)))

    assert any("all were brought to 32 x 32" in note for note in both["notes"])
    assert any("all were brought to 24 x 24" in note for note in smaller["notes"])
    assert both["values"]["fd_colour"]["card"]["side"] == 32


def test_without_a_floor_all_real_images_are_measured_against(pair, tmp_path):
    found = measured(*pair, tmp_path / "out", "floor=false", "features=colour")["values"]

    assert found["fd_colour"]["floor"] is None
    assert found["fd_colour"]["card"]["against"] == 40


def test_features_are_looked_up_the_second_time(pair, tmp_path, monkeypatch):
    first = measured(*pair, tmp_path / "one", f"cache={tmp_path / 'cache'}", "features=colour")
    monkeypatch.setattr(FEATURES.get("colour"), "forward", None)  # it would fail

    again = measured(*pair, tmp_path / "two", f"cache={tmp_path / 'cache'}", "features=colour")

    assert again["values"] == first["values"]


def test_few_images_have_no_shares_and_a_note_says_so(tmp_path):
    real, generated = fill(tmp_path / "real", 20, seed=0), fill(tmp_path / "generated", 10, seed=1)

    found = measured(real, generated, tmp_path / "out", "features=[colour]")

    assert set(found["values"]) == {"fd_colour", "kid_colour"}
    assert any("not defined below 20 images a side" in note for note in found["notes"])
    assert any("covariance is singular" in note for note in found["notes"])


def test_files_that_are_no_images_are_all_named_and_text_beside_them_is_not(pair, tmp_path):
    real, generated = pair
    (generated / "broken.png").write_bytes(b"not an image")
    (generated / "model.bin").write_bytes(b"weights")
    (generated / "captions.csv").write_text("id,text\n")
    (generated / ".DS_Store").write_bytes(b"x")

    with pytest.raises(DataError) as error:
        measured(real, generated, tmp_path / "out")

    text = str(error.value)
    assert "2 files cannot be taken as images" in text
    assert "broken.png" in text
    assert "model.bin: not an image" in text
    assert "captions.csv" not in text


def test_folders_that_cannot_be_measured_are_refused(pair, tmp_path):
    def refused(real, generated, words):
        with pytest.raises(DataError, match=words):
            measured(real, generated, tmp_path / "out")

    grey = tmp_path / "grey"
    grey.mkdir()
    for at in range(20):
        Image.new("RGB", (32, 32), (128, 128, 128)).save(grey / f"{at}.png")
    refused(pair[0], fill(tmp_path / "few", 9, seed=1), "holds 9 images; a distance needs 10")
    refused(pair[0], tmp_path / "none", "no such folder")
    refused(pair[0], fill(tmp_path / "small", 10, seed=1, size=8), "images of 8 pixels a side; 16 is the least")
    refused(pair[0], grey, "its 20 images are all the same picture")
    refused(grey, pair[1], "its 20 images are all the same picture")
    assert not (tmp_path / "out").exists()


def test_a_named_network_is_measured_with_its_options_and_its_resize(pair, tmp_path):
    path = FEATURES.get("mobilenet_v2").tiny(tmp_path)["path"]
    words = ("features=[mobilenet_v2,colour]", f"mobilenet_v2.path={path}", "colour.cells=2", "max_side=24")

    sharp, legacy = (
        measured(*pair, tmp_path / "out", *words, f"resize={how}")["values"] for how in ("antialiased", "legacy_tf")
    )

    assert {"fd_mobilenet_v2", "kid_mobilenet_v2", "recall_mobilenet_v2", "fd_colour"} < set(sharp)
    assert sharp["fd_colour"] == legacy["fd_colour"]
    assert "2x2" in sharp["fd_colour"]["protocol"]
    assert sharp["kid_mobilenet_v2"]["value"] != legacy["kid_mobilenet_v2"]["value"]
    assert sharp["kid_mobilenet_v2"]["hash"] != legacy["kid_mobilenet_v2"]["hash"]
    assert "legacy_tf" in legacy["kid_mobilenet_v2"]["protocol"]


def test_weights_that_give_no_numbers_are_refused(pair, tmp_path):
    path = FEATURES.get("mobilenet_v2").tiny(tmp_path)["path"]
    file = tmp_path / "mobilenet_v2" / "model.safetensors"
    save_file({name: value * torch.nan for name, value in load_file(file).items()}, file, {"format": "pt"})

    with pytest.raises(DataError, match="the features of 20 of 20 images are not finite"):
        measured(*pair, tmp_path / "out", "features=mobilenet_v2", f"feature.path={path}")


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (["outptu=here"], ConfigError, "Did you mean 'output'"),
        (["features=hihgfreq"], ConfigError, "Did you mean 'highfreq'"),
        (["features=[]"], ConfigError, "name one or more"),
        (["features=[colour,colour]"], ConfigError, "each once"),
        (["features=[colour,highfreq]", "feature.rings=3"], ConfigError, "Write colour.rings or highfreq.rings"),
        (["features=colour", "highfreq.rings=3"], ConfigError, "does not name 'highfreq'"),
        (["features=colour", "feature.cels=3"], ConfigError, "Did you mean 'cells'"),
        (["features=inception"], ConfigError, "inception.path: has no default"),
        (["features=inception", "feature.path=none.safetensors"], MissingError, "none.safetensors"),
        (["features=domain"], MissingError, "domain.path="),
        (["resize=legacy_tf"], ConfigError, "resize none"),
        (["resize=nearest"], ConfigError, "evaluate.resize"),
        (["draws=-1"], ConfigError, "draws is 0 or more"),
    ],
)
def test_words_that_cannot_be_meant_are_refused_with_the_way_out(pair, tmp_path, words, error, text):
    with pytest.raises(error) as found:
        evaluate_folders(*pair, read_choices([f"output={tmp_path / 'out'}", *words]))

    assert text in str(found.value)


def test_copies_of_training_images_fail_the_gate_when_everything_is_written(tmp_path):
    real, train = fill(tmp_path / "real", 120, seed=0), fill(tmp_path / "train", 80, seed=1)
    honest, copied = fill(tmp_path / "honest", 20, seed=2), tmp_path / "copied"
    shutil.copytree(train, copied, ignore=lambda _, names: [name for name in names if int(name.split(".")[0]) >= 20])

    passed = measured(real, honest, tmp_path / "a", f"train={train}")
    assert passed["notes"][0].startswith("memorisation: passed: copy rate 0.0 %")
    assert not json.loads((tmp_path / "a" / "memorisation.json").read_text())["leaked"]

    with pytest.raises(GateError, match=r"copied: its images copy those of .*train: copy rate 100\.0 %") as refusal:
        measured(real, copied, tmp_path / "b", f"train={train}")
    assert refusal.value.exit_code == 6
    assert json.loads((tmp_path / "b" / "memorisation.json").read_text())["verdict"] == "failed"
    assert "memorisation: failed" in (tmp_path / "b" / "evaluation.md").read_text()
    assert Image.open(tmp_path / "b" / "memorisation.png").width > 200


def test_too_few_real_images_leave_the_gate_undefined_and_training_images_cannot_be_the_real_ones(pair, tmp_path):
    real, generated = pair
    train = fill(tmp_path / "train", 20, seed=3)

    few = measured(real, generated, tmp_path / "out", f"train={train}")
    assert few["notes"][0].startswith("memorisation: undefined: 40 held-out images")
    with pytest.raises(DataError, match="is the real folder too"):
        measured(real, generated, tmp_path / "out", f"train={real}")
