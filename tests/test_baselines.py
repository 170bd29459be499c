"""The rivals' table: six systems on equal terms, each to its end, with what it alone gives."""

import csv
import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anastyle.cli import main
from anastyle.experiment import read

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
FILE = str(EXPERIMENTS / "baselines.yaml")
ROWS = ["sd15", "sdxl", "pixart_alpha", "medsegfactory", "med_art", "vg_medgen"]
SMALL = [
    "data.train=96",
    "data.test=64",
    "stages.disentangle={steps: 4, batch_size: 8}",
    "stages.align.steps=10",
    "stages.diffuse={steps: 4, batch_size: 8, warmup: 1}",
    "stages.generate={images: 32, steps: 3, swaps: 8, grid: 4}",
    "stages.evaluate={judge_steps: 5, domain_steps: 5, segmenter_steps: 10, bootstrap: 10}",
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("baselines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANASTYLE_TRACKING", "off")
        assert main(["run", FILE, *SMALL, f"output={output}"]) == 0
    return output / "baselines"


def test_terms_are_equal() -> None:
    configs = read(FILE).variants

    assert list(configs) == ROWS
    for section in ("autoencoder", "embedder", "data"):
        assert len({json.dumps(config[section]) for config in configs.values()}) == 1
    trained = [{**config["stages"]["diffuse"], "weights": None} for config in configs.values()]
    assert all(settings == trained[0] for settings in trained)
    painted = [config["stages"]["generate"] for config in configs.values()]
    assert all(settings == painted[0] for settings in painted)
    for option in ("path", "prediction", "schedule", "timesteps", "contour_weight", "min_snr"):
        assert len({config["backbone"][option] for config in configs.values()}) == 1


def test_the_table_of_equal_time_differs_in_steps_alone() -> None:
    images, time = (deepcopy(read(EXPERIMENTS / name).variants) for name in ("baselines.yaml", "baselines_time.yaml"))
    steps = {row: config["stages"]["diffuse"]["steps"] for row, config in time.items()}
    for config in [*images.values(), *time.values()]:
        config["stages"]["diffuse"]["steps"] = None

    assert time == images
    assert steps["medsegfactory"] < steps["vg_medgen"] < steps["pixart_alpha"], "two streams, an encoder too, neither"


def test_every_system_ends_in_the_table(study: Path) -> None:
    rows = list(csv.DictReader((study / "table.csv").open()))
    found = {(row["variant"], row["metric"]): row for row in rows}

    assert {row["variant"] for row in rows} >= set(ROWS)
    for row in ROWS:
        assert float(found[row, "fd_domain"]["mean"]) > 0
        assert float(found[row, "cost/seconds"]["mean"]) > 0
        assert float(found[row, "cost/gflop"]["mean"]) > 0.01
        assert float(found[row, "cost/minutes"]["mean"]) > 0
        assert bool(found[row, "pair_dice"]["mean"]) == (row == "medsegfactory"), "only it paints masks"
    parameters = {row: float(found[row, "cost/parameters"]["mean"]) for row in ROWS}
    assert parameters["med_art"] > parameters["pixart_alpha"], "it brings a text encoder"
    assert parameters["medsegfactory"] > parameters["sd15"], "its streams look at each other"


def test_pairs_are_sampled_with_their_masks(study: Path, tmp_path: Path) -> None:
    run = study / "medsegfactory" / "seed-42"

    assert (
        main(["sample", str(run), "--anatomy", "a round lesion", "--style", "red", "--out", str(tmp_path / "x")]) == 0
    )

    (line,) = csv.DictReader((tmp_path / "x" / "samples.csv").open())
    mask = np.asarray(Image.open(tmp_path / "x" / line["mask"]))
    assert mask.shape == (32, 32)
    assert set(np.unique(mask)) <= {0, 255}
