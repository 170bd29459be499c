"""The book of trials: a total that is right whoever dies, on journals, SQLite and PostgreSQL as they are."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from anastyle.errors import ConfigError, MissingError
from anastyle.sweeps import storage, workers
from anastyle.sweeps.book import sampler
from anastyle.sweeps.storage import holder
from sweeps import clerk
from sweeps.tiny import environment
from tools.postgresql import PostgreSQL, postgresql

__all__ = ["postgresql"]


@pytest.fixture(params=["journal", "postgresql"])
def address(request: pytest.FixtureRequest) -> str | None:
    """Where several workers may keep their trials."""
    if request.param == "journal":
        return None
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database(f"sweep_{os.urandom(4).hex()}").replace("+psycopg2", "")  # as one would write it


def start(folder: Path, address: str | None, trials: int, pause: float = 0.0, hang_at: int = -1) -> subprocess.Popen:
    """Start a worker in a process of its own."""
    words = [str(folder), address or "", str(trials), str(pause), str(hang_at)]
    program = Path(clerk.__file__)
    path = os.pathsep.join([environment()["PYTHONPATH"], str(program.parents[1])])
    return subprocess.Popen(
        [sys.executable, str(program), *words],
        env=environment() | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_at(worker: subprocess.Popen, taken: int) -> list[int]:
    """Kill a worker when it has taken so many trials; return which."""
    numbers = []
    while len(numbers) < taken:
        line = worker.stdout.readline()
        assert line, "the worker ended by itself"
        numbers += [int(line.split()[1])] if line.startswith("took") else []
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    return numbers


def states(opened) -> Counter:
    return Counter(trial.state.name for trial in opened.all())


def test_two_workers_one_killed_end_at_the_total(address, tmp_path):
    killed, other = start(tmp_path, address, 8, hang_at=2), start(tmp_path, address, 8, pause=0.05)
    before = kill_at(killed, 3)
    said, _ = other.communicate(timeout=300)

    opened = clerk.book(tmp_path, clerk.sweep(8, address))
    trials = opened.all()
    assert other.returncode == 0
    assert states(opened) == {"COMPLETE": 8}
    assert [trial.number for trial in trials] == list(range(8))
    assert trials[before[-1]].user_attrs["deaths"] == 1
    assert f"trial-{before[-1]:04d}: process {killed.pid} on" in said
    assert sorted(json.loads(said.splitlines()[-1]) + before[:-1]) == list(range(8)), "none lost, none doubled"
    assert len({json.dumps(trial.params) for trial in trials}) == 8, "two workers never draw the same"


def test_a_trial_whose_worker_died_is_taken_up_once_with_its_options(tmp_path):
    first = kill_at(start(tmp_path, None, 2, hang_at=0), 1)
    params = clerk.book(tmp_path, clerk.sweep(2)).all()[0].params
    again = kill_at(start(tmp_path, None, 2, hang_at=0), 1)

    opened = clerk.book(tmp_path, clerk.sweep(2))
    clerk.work(opened)

    assert first == again == [0]
    assert opened.all()[0].params == params
    assert states(opened) == {"FAIL": 1, "COMPLETE": 1}
    assert opened.all()[0].user_attrs["reason"] == "its worker died, 2 times"


def test_a_worker_on_another_machine_is_dead_when_it_shows_no_life_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "BEAT_EVERY", 0.05)
    monkeypatch.setattr(workers, "GRACE", 1.5)
    there, here = clerk.book(tmp_path, clerk.sweep(1)), clerk.book(tmp_path, clerk.sweep(1))
    there.watch.me = {**there.watch.me, "host": "elsewhere"}
    taken = there.take()

    with there.alive(taken):
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert here.take() is None, "it lives"
            time.sleep(0.2)
    until = time.monotonic() + 60
    while (again := here.take()) is None and time.monotonic() < until:
        time.sleep(0.2)

    assert again is not None
    assert again.params == taken.params
    assert not there.tell(taken, TrialState.COMPLETE, [1.0]), "it was taken for dead, and comes too late"
    assert here.tell(again, TrialState.COMPLETE, [2.0])
    assert [trial.values for trial in here.all()] == [[2.0]]


def test_a_trial_given_back_goes_on_and_counts_no_death(tmp_path):
    opened = clerk.book(tmp_path, clerk.sweep(1))
    taken = opened.take()
    opened.give_back(taken)

    again = opened.take()

    assert (again.number, again.params) == (taken.number, taken.params)
    assert not opened.all()[0].user_attrs.get("deaths")


def test_what_was_told_twice_counts_once(tmp_path):
    opened = clerk.book(tmp_path, clerk.sweep(1))
    taken = opened.take()

    assert opened.tell(taken, TrialState.COMPLETE, [1.0])
    assert opened.tell(taken, TrialState.COMPLETE, [1.0])
    assert states(opened) == {"COMPLETE": 1}


def test_the_total_can_be_raised(tmp_path):
    clerk.work(clerk.book(tmp_path, clerk.sweep(2)))
    opened = clerk.book(tmp_path, clerk.sweep(5))

    assert clerk.work(opened) == [2, 3, 4]
    assert clerk.work(clerk.book(tmp_path, clerk.sweep(3))) == [], "a lower total is reached"


def test_a_sweep_in_pieces_draws_what_one_in_one_piece_draws(tmp_path):
    for trials in (2, 4, 12):
        clerk.work(clerk.book(tmp_path / "pieces", clerk.sweep(trials, sampler="tpe", n_startup_trials=3)))
    clerk.work(clerk.book(tmp_path / "whole", clerk.sweep(12, sampler="tpe", n_startup_trials=3)))

    drawn = [
        [trial.params for trial in clerk.book(tmp_path / name, clerk.sweep(12)).all()] for name in ("pieces", "whole")
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(("name", "objectives"), [("qmc", 1), ("gp", 1), ("nsga2", 2), ("tpe", 2)])
def test_samplers_draw_within_the_space(name, objectives, tmp_path):
    options = {"population_size": 2} if name == "nsga2" else {} if name == "qmc" else {"n_startup_trials": 2}
    opened = clerk.book(tmp_path, clerk.sweep(4, sampler=name, objectives=objectives, **options))
    while (taken := opened.take()) is not None:
        opened.tell(taken, TrialState.COMPLETE, [clerk.worth(taken), 0.5][:objectives])

    trials = opened.all()
    assert states(opened) == {"COMPLETE": 4}
    assert all(trial.params["backbone.lora_rank"] in (2, 4, 8) for trial in trials)
    assert all(1e-4 <= trial.params["stages.diffuse.lr"] <= 1e-2 for trial in trials)


def test_a_grid_is_walked_once(tmp_path):
    opened = clerk.book(tmp_path, clerk.sweep(3, sampler="grid"))
    while (taken := opened.take()) is not None:
        opened.tell(taken, TrialState.COMPLETE, [1.0])

    assert sorted(trial.params["backbone.lora_rank"] for trial in opened.all()) == [2, 4, 8]


def test_two_trials_never_share_a_stream_of_chance():
    chosen = clerk.sweep()
    first, again, second = (sampler(chosen, number)._rng.rng.random() for number in (0, 0, 1))

    assert first == again != second


def test_another_experiment_is_refused(tmp_path):
    clerk.book(tmp_path, clerk.sweep(2))

    with pytest.raises(ConfigError, match=r"backbone\.name: compact_dit there, pixart_lora here"):
        clerk.book(tmp_path, clerk.sweep(2), about={"backbone.name": "pixart_lora"})


# Storages in trouble


def test_half_a_line_spoils_nothing(tmp_path):
    opened = clerk.book(tmp_path, clerk.sweep(3))
    taken = opened.take()
    with (tmp_path / storage.JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code": 6, "worker_id": "kill')

    assert opened.tell(taken, TrialState.COMPLETE, [1.0])
    assert clerk.work(clerk.book(tmp_path, clerk.sweep(3))) == [1, 2]


def test_a_journal_taken_away_ends_the_worker_with_the_way_out(tmp_path):
    opened = clerk.book(tmp_path, clerk.sweep(3))
    taken = opened.take()
    (tmp_path / storage.JOURNAL).unlink()

    with pytest.raises(MissingError, match=r"optuna\.journal: is gone\. Put it back .* or start over: --fresh"):
        opened.tell(taken, TrialState.COMPLETE, [1.0])
    assert not (tmp_path / storage.JOURNAL).exists(), "no other one is begun in its place"
    with pytest.raises(MissingError, match="holds no study 'clerks', though trials of it were run"):
        clerk.book(tmp_path, clerk.sweep(3))


def test_a_locked_sqlite_is_waited_for_and_its_holder_named(tmp_path):
    address, said = f"sqlite:///{tmp_path}/trials.db", []
    opened = clerk.book(tmp_path, clerk.sweep(2, address), said.append)
    program = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN EXCLUSIVE');"
        "print('locked', flush=True); time.sleep(10)"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "trials.db")]
    holding = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert holding.stdout.readline() == "locked\n"
    began = time.monotonic()

    taken = opened.take()
    opened.tell(taken, TrialState.COMPLETE, [1.0])

    assert time.monotonic() - began > 5
    assert any(f"locked by process {holding.pid} (python" in text for text in said), said
    assert states(opened) == {"COMPLETE": 1}
    holding.communicate()


def test_a_second_worker_on_sqlite_is_refused(tmp_path):
    address = f"sqlite:///{tmp_path}/trials.db"
    opened = clerk.book(tmp_path, clerk.sweep(2, address))

    with pytest.raises(ConfigError, match="SQLite lets one writer in at a time"):
        clerk.book(tmp_path, clerk.sweep(2, address))
    opened.place.close()
    clerk.book(tmp_path, clerk.sweep(2, address))


def test_a_sqlite_file_taken_away_is_told(tmp_path):
    opened = clerk.book(tmp_path, clerk.sweep(2, f"sqlite:///{tmp_path}/trials.db"))
    (tmp_path / "trials.db").unlink()

    with pytest.raises(MissingError, match=r"trials\.db: is gone"):
        opened.take()


def test_a_server_that_dies_is_waited_for(postgresql, tmp_path):
    said: list[str] = []
    opened = clerk.book(tmp_path, clerk.sweep(2, postgresql.database("dies")), said.append)
    taken = opened.take()
    postgresql.stop()
    threading.Timer(3, postgresql.start).start()

    assert opened.tell(taken, TrialState.COMPLETE, [1.0])
    assert clerk.work(opened) == [1]
    assert any("does not answer" in text for text in said)
    assert not any(postgresql.password in text for text in said)


def test_a_server_that_stays_away_ends_the_worker_with_the_way_out(postgresql, tmp_path, monkeypatch):
    address = postgresql.database("away")
    clerk.book(tmp_path, clerk.sweep(2, address))
    monkeypatch.setattr(storage, "AT_START", 1.0)
    nobody = address.replace(f":{postgresql.port}/", ":1/")

    with pytest.raises(MissingError, match="does not answer") as told:
        clerk.book(tmp_path, clerk.sweep(2, nobody))
    assert postgresql.password not in str(told.value)


def test_a_wrong_password_is_told_at_once(postgresql, tmp_path):
    wrong = postgresql.url.replace(postgresql.password, "guess")

    with pytest.raises(MissingError, match="password authentication failed") as told:
        clerk.book(tmp_path, clerk.sweep(2, wrong))
    assert "guess" not in str(told.value)


def test_a_database_emptied_between_two_commands_is_told(postgresql, tmp_path):
    clerk.work(clerk.book(tmp_path, clerk.sweep(1, postgresql.database("full"))))

    with pytest.raises(MissingError, match="Put the storage back"):
        clerk.book(tmp_path, clerk.sweep(1, postgresql.database("empty")))


def test_no_password_is_written_down(postgresql, tmp_path):
    clerk.work(clerk.book(tmp_path, clerk.sweep(1, postgresql.database("quiet"))))

    assert all(postgresql.password not in file.read_text() for file in tmp_path.rglob("*") if file.is_file())


def test_starting_over_drops_the_trials_unless_a_worker_is_at_one(tmp_path):
    busy = start(tmp_path, None, 2, hang_at=0)
    assert busy.stdout.readline() == "took 0\n"
    opened = clerk.book(tmp_path, clerk.sweep(2))

    with pytest.raises(ConfigError, match=f"process {busy.pid} on .* is at trial-0000. Stop it first"):
        opened.forget()
    busy.kill()
    busy.communicate()
    assert len(opened.forget()) == 1
    assert clerk.work(clerk.book(tmp_path / "fresh", clerk.sweep(1))) == [0]


def test_nobody_holds_what_is_not_locked(tmp_path):
    with sqlite3.connect(tmp_path / "free.db") as connection:
        connection.execute("create table a (b)")

    assert holder(tmp_path / "free.db") == ""
    assert holder(tmp_path / "missing") == ""
