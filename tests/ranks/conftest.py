"""What the tests of many ranks share: how a program is launched, and what it leaves behind."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launchers import PATIENCE, PROGRAM, Left, environment

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Return ``launch(launcher, words, **environment)``: a program run to its end."""

    def launch(launcher: tuple[str, ...], *words: Any, **more: str) -> subprocess.CompletedProcess[str]:
        command = [*launcher, *map(str, words)]
        return subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=PATIENCE)

    return launch


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
