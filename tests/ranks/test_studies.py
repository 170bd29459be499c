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
        self.file = output / "smoke" / "table.csv"

    def rows(self) -> set[str]:
        """Return what the table measures."""
        with self.file.open() as file:
            return {row[1] for row in csv.reader(file)}


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


def test_two_ranks_end_in_the_losses_images_and_table_of_one(one, study):
    two = study(ranks(2))

    assert any("diffuse" in name for _, name in one.losses)
    assert two.losses == pytest.approx(one.losses, rel=1e-5, abs=1e-7)
    assert np.abs((two.images - one.images).numpy()).max() <= 1
    assert two.rows() == one.rows()


def test_zero_ends_in_them_too_as_far_as_adam_lets_it(one, study):
    """A bias before a normalisation has no gradient but rounding, of which Adam makes whole steps: those differ."""
    pytest.importorskip("deepspeed", exc_type=ImportError)
    two = study(config("zero2"))

    first = {key: value for key, value in one.losses.items() if "disentangle" in key[1]}
    assert {key: two.losses[key] for key in first} == pytest.approx(first, rel=1e-5, abs=1e-7)
    assert two.losses == pytest.approx(one.losses, rel=0.1, abs=1e-3)
    assert np.abs((two.images - one.images).numpy()).mean() < 3
    assert two.rows() == one.rows()


def test_ranks_that_outnumber_the_images_come_to_an_end(study):
    left = study(ranks(2), "data.train=1", "stages.evaluate=null")

    assert left.losses
