"""Distances on real medical images, where they are at hand: a set's other half is near, another set is far."""

import json
import os
import shutil
from pathlib import Path

import pytest

from anastyle.evaluation.choices import read_choices
from anastyle.evaluation.folders import evaluate_folders

SHARED = Path(__file__).parents[3] / "shared"
DATA = Path(os.environ.get("ANASTYLE_REAL_DATA", SHARED / "data"))
MOBILENET = Path(os.environ.get("ANASTYLE_MOBILENET_V2", SHARED / "weights" / "mobilenet_v2"))
SETS = ("busi", "ham10000", "kvasir_seg")
COUNT = 48  # images a half

pytestmark = pytest.mark.skipif(
    not all((DATA / name / "images").is_dir() for name in SETS), reason="no real images: ANASTYLE_REAL_DATA=FOLDER"
)


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> dict[str, list[Path]]:
    """Lay two disjoint parts of each set into folders."""
    found: dict[str, list[Path]] = {}
    for name in SETS:
        files = sorted((DATA / name / "images").iterdir())
        files = files[:: len(files) // (2 * COUNT)][: 2 * COUNT]  # all classes
        found[name] = [tmp_path_factory.mktemp(f"{name}{half}") for half in (0, 1)]
        for at, file in enumerate(files):
            shutil.copy(file, found[name][at % 2])
    return found


@pytest.fixture(scope="module")
def measured(halves, tmp_path_factory):
    """Return what is written for two folders, each pair once."""
    known: dict[tuple[str, Path, Path], dict] = {}
    output = tmp_path_factory.mktemp("out")

    def evaluate(real: Path, generated: Path, features: str = "highfreq,colour") -> dict:
        words = [f"features=[{features}]", "max_side=64", "draws=30", f"output={output}"]
        if features == "mobilenet_v2":
            words.append(f"feature.path={MOBILENET}")
        if (features, real, generated) not in known:
            assert evaluate_folders(real, generated, read_choices(words)) == 0
            known[features, real, generated] = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
        return known[features, real, generated]

    return evaluate


@pytest.mark.parametrize("name", SETS)
def test_the_other_half_of_a_set_is_near_and_another_set_far(halves, measured, name):
    real, other = halves[name]
    elsewhere = halves[SETS[(SETS.index(name) + 1) % 3]][1]
    near, far = (measured(real, some)["values"] for some in (other, elsewhere))

    for features in ("highfreq", "colour"):
        assert far[f"fd_{features}"]["low"] > near[f"fd_{features}"]["value"]
        assert near[f"precision_{features}"]["value"] > 0.6
        assert far[f"density_{features}"]["value"] < 0.5 * near[f"density_{features}"]["value"]
        assert far[f"coverage_{features}"]["value"] < 0.5 * near[f"coverage_{features}"]["value"]


@pytest.mark.parametrize("name", SETS)
def test_a_set_against_itself_is_nearer_than_its_other_half_and_is_called_out(halves, measured, name):
    real, other = halves[name]
    itself, near = measured(real, real), measured(real, other)

    assert itself["values"]["fd_colour"]["value"] < near["values"]["fd_colour"]["value"]
    assert any(f"{COUNT} of the {COUNT} generated files are byte-for-byte" in note for note in itself["notes"])
    assert not any("byte-for-byte" in note for note in near["notes"])


@pytest.mark.skipif(not (MOBILENET / "config.json").is_file(), reason="no real weights: ANASTYLE_MOBILENET_V2=FOLDER")
def test_a_pretrained_network_tells_skin_from_ultrasound(halves, measured):
    near, far = (
        measured(halves["ham10000"][0], some, "mobilenet_v2")["values"]
        for some in (halves["ham10000"][1], halves["busi"][1])
    )

    assert near["kid_mobilenet_v2"]["low"] < 0.1 < far["kid_mobilenet_v2"]["low"]
    assert far["recall_mobilenet_v2"]["value"] < 0.3 < near["recall_mobilenet_v2"]["value"]
