"""A whole study on two ranks: every stage of it, and the table that one process writes."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from launchers import ROOT, config, ranks

from anastyle.checkpoint import load_tensors

pytestmark = pytest.mark.slow
RUN = str(ROOT / "launch" / "run.py")
SMOKE = str(ROOT / "experiments" / "smoke.yaml")
SMALL = [  # two batches a step, so that each of two ranks takes a whole one
    "data.train=48", "data.test=32", "only=full", "stages.generate.images=16", "stages.generate.steps=2",
    "stages.generate.grid=4", "stages.evaluate.judge_steps=2", "stages.evaluate.domain_steps=2",
    "stages.evaluate.bootstrap=5", *(f"stages.{stage}.{key}={value}" for stage in ("disentangle", "align", "diffuse")
    for key, value in {"steps": 4, "batch_size": 8, "accumulate": 2, "log_every": 1}.items()),
]  # fmt: skip


class Study:
    """What a study left."""

    def __init__(self, output: Path) -> None:
        lines = (output / "smoke" / "full" / "seed-42" / "metrics.jsonl").read_text().splitlines()
        self.losses = {(line["step"], name): value for line in map(json.loads, lines) for name, value in line.items()
                       if "/loss" in name or "grad_norm" in name or name.endswith("/lr")}  # fmt: skip
        self.images = load_tensors(next(output.glob("store/generate/*/images.safetensors")))["images"].int()
        with (output / "smoke" / "table.csv").open() as file:
            self.table = {row[1]: row[2] for row in csv.reader(file) if not row[1].startswith("cost/")}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, launch) -> Callable[..., Study]:
    """Return ``study(launcher, *words)``: the small study, run to its end."""

    def study(launcher: tuple[str, ...], *words: str) -> Study:
        output = tmp_path_factory.mktemp("study")
        done = launch(launcher, RUN, SMOKE, *SMALL, *words, f"output={output}")
        assert done.returncode == 0, done.stderr[-3000:]
        return Study(output)

    return study


@pytest.fixture(scope="module")
def one(study) -> Study:
    """The study of one process."""
    return study((sys.executable,))


@pytest.mark.parametrize("launcher", [ranks(2), config("zero2")], ids=["ddp", "zero2"])
def test_two_ranks_end_in_the_losses_images_and_table_of_one(launcher, one, study):
    two = study(launcher)

    assert two.losses.keys() == one.losses.keys()
    assert any("diffuse" in name for _, name in one.losses)
    for key, value in one.losses.items():
        assert two.losses[key] == pytest.approx(value, rel=1e-4, abs=1e-7), key
    off = np.abs((two.images - one.images).numpy())
    assert off.max() <= 2
    assert two.table.keys() == one.table.keys()


def test_ranks_that_outnumber_the_images_come_to_an_end(study):
    left = study(ranks(2), "data.train=1", "stages.evaluate=null")

    assert left.losses
