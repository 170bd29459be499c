"""Two and four ranks on one CPU train what one does, resume each other's checkpoints, and lose one of them plainly."""

import re
import signal
import sys
import time
from pathlib import Path

import pytest
from launchers import PROGRAM, ranks

from anastyle.checkpoint import checkpoints

pytestmark = pytest.mark.slow
KILL, TERM, INT = (int(number) for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT))


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_train_what_one_does(alone, trained, count):
    trained(ranks(count)).equals(alone)


@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1)])
def test_a_training_goes_on_at_another_number_of_ranks(tmp_path, alone, launch, trained, first, then):
    under = {1: (sys.executable,), 2: ranks(2)}
    stopped = launch(under[first], PROGRAM, tmp_path, f"event=5/0/{TERM}")
    assert stopped.returncode in (143, 1), stopped.stderr[-3000:]  # torchrun makes it a 1
    assert checkpoints(tmp_path / "work")[0].name == "checkpoint-5"

    continued = trained(under[then], folder=tmp_path)

    continued.equals(alone)


def test_batches_that_are_cut_take_as_many_steps_at_the_same_rates(alone, trained):
    left = trained(ranks(2), "accumulate=1", "batch_size=16")

    assert [line["train/toy/lr"] for line in left.log] == [line["train/toy/lr"] for line in alone.log]
    assert all(line["train/toy/loss"] > 0 for line in left.log)


def test_without_restarts_a_dead_rank_ends_all_within_fifteen_seconds(tmp_path, launch):
    done = launch(ranks(2), PROGRAM, tmp_path, f"event=4/1/{KILL}")
    ended = time.time()

    assert done.returncode != 0
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert ended - (tmp_path / "struck").stat().st_mtime < 15
    assert checkpoints(tmp_path / "work")[0].name == "checkpoint-3"


@pytest.mark.parametrize("who", [0, 1])
def test_with_a_restart_a_dead_rank_changes_nothing(tmp_path, alone, launch, trained, who):
    left = trained(ranks(2, "--max-restarts", "1"), f"event=4/{who}/{KILL}", folder=tmp_path)

    assert (tmp_path / "struck").exists()
    left.equals(alone)


def test_a_step_that_cannot_be_shared_out_ends_all_ranks_at_once(tmp_path, launch):
    done = launch(ranks(2), PROGRAM, tmp_path, "batch_size=3", "accumulate=1")

    assert done.returncode == 1
    assert "exitcode  : 2" in done.stderr
    assert "cannot be shared out to 2 devices" in done.stderr


@pytest.mark.parametrize("who", [0, 1])
def test_what_fails_on_one_rank_alone_fails_on_all(tmp_path, launch, who):
    done = launch(ranks(2), PROGRAM, tmp_path, f"fails={who}")

    assert sorted(re.findall(r"^error: (.*)", done.stderr, re.MULTILINE)) == ["DataError: only here", "only here"]
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("number", [TERM, INT])
def test_one_rank_s_signal_stops_all_after_the_same_step(tmp_path, alone, launch, trained, number):
    done = launch(ranks(2), PROGRAM, tmp_path, f"event=5/1/{number}")

    assert set(re.findall(r"exitcode  : (\d+)", done.stderr)) == {str(128 + number)}
    assert checkpoints(tmp_path / "work")[0].name == "checkpoint-5"
    trained((sys.executable,), folder=tmp_path).equals(alone)


def test_a_rank_that_stays_silent_is_not_waited_for_long(tmp_path: Path, launch):
    done = launch(ranks(2), PROGRAM, tmp_path, f"event=4/1/{int(signal.SIGSTOP)}", ANASTYLE_RANK_TIMEOUT="8")

    assert done.returncode != 0
    assert "stages.toy: another process is gone, or did not answer for 8 s" in done.stderr
