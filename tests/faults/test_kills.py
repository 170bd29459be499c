"""Kills and signals: the same command afterwards ends in the same bytes."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import kills
import pytest

HERE = Path(__file__).parent


def program(file: str, *words: object, within: Path, umask: int = -1, **environment: str) -> dict[str, Any]:
    """Run a program that lies beside this file in a folder; return what it prints last."""
    paths = [str(HERE.parents[1] / root) for root in ("framework", "plugins")]
    around = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, str(HERE / file), *map(str, words)]
    done = subprocess.run(command, cwd=within, env=around, umask=umask, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an undisturbed study."""
    folder = tmp_path_factory.mktemp("calm")
    assert program("studies.py", "undisturbed", within=folder) == {"code": 0}
    return folder


ODD = {"PYTHONHASHSEED": "12345", "LC_ALL": "C", "TZ": "Pacific/Chatham"}


def odd_folder(folder: Path) -> Path:
    """Return a folder below whose path is no plain word."""
    odd = folder / "läsionen ü 病変" / "my study"
    odd.mkdir(parents=True)
    return odd


@pytest.fixture(scope="module")
def disturbed(calm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what came of a study that was stopped, killed and damaged, and what its files said before the damage.

    It runs in an odd environment, too.
    """
    folder = odd_folder(tmp_path_factory.mktemp("disturbed"))
    found = program("studies.py", "disturbed", calm / "awake.json", within=folder, umask=0o077, **ODD)
    files = json.loads((folder / "files.json").read_text())
    return {**found, "files": {name: bytes.fromhex(content) for name, content in files.items()}}


def test_a_study_killed_again_and_again_ends_in_the_same_files(calm: Path, disturbed: dict[str, Any]) -> None:
    assert disturbed["lost"] == []
    assert disturbed["kills"] > 2
    assert kills.differences(disturbed["files"], kills.contents(calm / "runs")) == []


def test_sigterm_outside_a_training_stops_the_study_too(disturbed: dict[str, Any]) -> None:
    assert (disturbed["stopped"], disturbed["status"]) == (143, "stopped")


def test_a_finished_stage_whose_bytes_have_changed_is_refused(disturbed: dict[str, Any]) -> None:
    first, second, *more = disturbed["said"]

    assert disturbed["refused"] == 2
    assert "store/diffuse/" in first
    assert "is damaged. Delete it, it will be made anew." in first
    assert "weights.safetensors: contents changed since it was written" in second
    assert len(more) <= 3


@pytest.mark.slow
def test_hash_seed_locale_umask_clock_and_place_change_nothing(calm: Path, tmp_path: Path) -> None:
    folder = odd_folder(tmp_path)

    assert program("studies.py", "jumping", within=folder, umask=0o077, **ODD) == {"code": 0}

    assert kills.differences(kills.contents(folder / "runs"), kills.contents(calm / "runs")) == []


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what came of small trainings that were killed at every change of the disk, and sent signals."""
    return program("trainings.py", ".", within=tmp_path_factory.mktemp("trainings"))


def test_a_kill_at_any_change_of_the_disk_costs_nothing(trainings: dict[str, Any]) -> None:
    found = trainings["every_change"]

    met = Counter(found["places"])
    assert met["saving"] > 20
    assert met["removing"] > 5
    assert found["differing"] == found["broken"] == []


def test_a_kill_while_checkpoints_are_removed_leaves_no_part_of_them(trainings: dict[str, Any]) -> None:
    found = trainings["removals"]

    assert found["kills"] > 5
    assert found["broken"] == []


@pytest.mark.parametrize(
    ("how", "code", "newest"),
    [("term", 143, "checkpoint-3"), ("int", 130, "checkpoint-3"), ("twice", -15, "checkpoint-2")],
)
def test_a_signal_in_the_middle_of_a_step_is_granted_after_it_and_a_second_one_at_once(
    trainings: dict[str, Any], how: str, code: int, newest: str
) -> None:
    found = trainings["signals"][how]

    assert (found["code"], found["newest"], found["same"]) == (code, newest, True)
    assert found["seconds"] < 10
