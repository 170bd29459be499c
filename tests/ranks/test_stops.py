"""A training that is told to stop: by a signal, twice, by the end of its launcher, on one rank or on all."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from launchers import PATIENCE, PROGRAM, config, environment, ranks

from anastyle.checkpoint import checkpoints, verify

ENDLESS = ("steps=100000", "epochs=null", "checkpoint_every=100000", "schedule=constant", "warmup=0")


def begun(folder: Path, steps: int) -> bool:
    """Say whether a training has taken a few steps."""
    file = folder / "work" / "metrics.jsonl"
    return file.exists() and len(file.read_text().splitlines()) >= steps


def until(said, what: str) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + PATIENCE
    while not said():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.1)


class Started:
    """A launched training that has taken its first steps, and its process that trains."""

    def __init__(self, launcher: tuple[str, ...], folder: Path, *words: str, steps: int = 3) -> None:
        self.folder, self.log = folder, folder / "log.txt"
        command = [*launcher, PROGRAM, str(folder), *ENDLESS, *words]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
        until(lambda: begun(folder, steps) or self.process.poll() is not None, "the first steps")
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        below = psutil.Process(self.process.pid).children(recursive=True)
        self.training = [child for child in below if PROGRAM in child.cmdline()] or [psutil.Process(self.process.pid)]

    def ended(self) -> int:
        """Wait for the end of everything; return the launcher's exit code."""
        code = self.process.wait(PATIENCE)
        _, alive = psutil.wait_procs(self.training, PATIENCE)
        assert not alive
        return code

    def saved(self) -> int:
        """Return the step of the one checkpoint, which is whole, and the last that was logged."""
        (newest,) = checkpoints(self.folder / "work")
        assert verify(newest) == []
        step = int(newest.name.removeprefix("checkpoint-"))
        lines = (self.folder / "work" / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == step
        return step


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_granted_after_the_step_with_a_checkpoint_and_its_exit_code(tmp_path, number, code):
    started = Started((sys.executable,), tmp_path)

    started.process.send_signal(number)

    assert started.ended() == code
    step = started.saved()
    assert f"stopped after step {step} of 100000; the same command continues from there" in started.log.read_text()


def test_a_second_signal_leaves_at_once(tmp_path):
    started = Started((sys.executable,), tmp_path, "slow=60", steps=4)
    began = time.monotonic()  # of a fifth step that takes a minute

    for _ in range(2):
        time.sleep(2)
        started.process.send_signal(signal.SIGTERM)

    assert started.ended() == -signal.SIGTERM
    assert time.monotonic() - began < 30
    assert checkpoints(tmp_path / "work") == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_accelerate_s_launcher_is_a_signal_to_what_it_started(tmp_path, number):
    started = Started(config("cpu"), tmp_path)
    assert len(started.training) == 1
    assert started.training[0].pid != started.process.pid

    started.process.send_signal(number)

    assert started.ended() != 0
    assert started.saved() >= 3


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_launcher_and_training_and_is_one_wish(tmp_path):
    started = Started(config("cpu"), tmp_path)

    for process in (started.process, started.training[0]):
        os.kill(process.pid, signal.SIGINT)

    started.ended()
    started.saved()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [ranks(2), config("ddp")], ids=["torchrun", "accelerate"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_launcher_of_two_ranks_stops_both_with_one_checkpoint(tmp_path, launcher, number, code):
    started = Started(launcher, tmp_path)
    assert len(started.training) == 2

    started.process.send_signal(number)

    assert started.ended() != 0
    assert started.saved() >= 3
    assert set(re.findall(r"stopped after step (\d+)", started.log.read_text())) == {str(started.saved())}


@pytest.mark.slow
def test_ranks_whose_launcher_is_killed_save_and_end(tmp_path):
    started = Started(ranks(2), tmp_path)

    started.process.kill()

    started.ended()
    assert started.saved() >= 3
