"""What the evaluate stage writes down beside its metrics."""

import json
from pathlib import Path

import pytest

from anastyle.evaluation.measure import training_seconds
from anastyle.plan import Node


def test_a_training_costs_the_seconds_of_its_steps_and_not_those_of_its_pauses(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "time": 1_000, "perf/diffuse/images_per_s": 4.0},
        {"step": 5, "time": 9_000, "perf/diffuse/images_per_s": 16.0},
        {"step": 7, "time": 86_400_000, "perf/diffuse/images_per_s": 8.0},  # continued on the next day
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    node = Node("diffuse", "", tmp_path, {"steps": 7, "batch_size": 4, "accumulate": 2})

    assert training_seconds(node) == pytest.approx(8 / 4 + 4 * 8 / 16 + 2 * 8 / 8)
