"""What the tests of many ranks share: how a program is launched, and what it leaves behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launchers import PATIENCE, PROGRAM, environment
from safetensors.torch import load_file

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Return ``launch(launcher, words, **environment)``: a program run to its end."""

    def launch(launcher: tuple[str, ...], *words: Any, **more: str) -> subprocess.CompletedProcess[str]:
        command = [*launcher, *map(str, words)]
        return subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=PATIENCE)

    return launch


class Left:
    """What a run of the program left in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = load_file(folder / "weights.safetensors")
        lines = (folder / "work" / "metrics.jsonl").read_text().splitlines()
        self.log = [{name: value for name, value in json.loads(line).items() if name != "time" and "perf/" not in name}
                    for line in lines]  # fmt: skip

    def equals(self, other: "Left", *, within: float = 1e-6) -> None:
        """Check every logged number, relative, and every weight against another run's."""
        assert len(self.log) == len(other.log)
        for mine, others in zip(self.log, other.log, strict=True):
            assert mine == pytest.approx(others, rel=within), mine["step"]
        assert self.weights.keys() == other.weights.keys()
        for name, tensor in self.weights.items():
            assert (tensor.double() - other.weights[name].double()).abs().max() <= within, name


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> Callable[..., Left]:
    """Return ``trained(launcher, *words, folder=None)``: the program's training under a launcher."""

    def trained(launcher: tuple[str, ...], *words: str, folder: Path | None = None, **more: str) -> Left:
        folder = folder or tmp_path_factory.mktemp("ranks")
        done = launch(launcher, PROGRAM, folder, *words, **more)
        assert done.returncode == 0, done.stderr[-3000:]
        return Left(folder)

    return trained


@pytest.fixture(scope="session")
def alone(trained: Callable[..., Left]) -> Left:
    """Return the training of one process that nobody disturbed."""
    return trained((sys.executable,))
