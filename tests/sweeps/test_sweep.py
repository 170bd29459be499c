"""Sweeps, run: trials that train, a table, the best as a file, several objectives, ranks, workers that are killed."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from anastyle.cli import main
from anastyle.experiment import Experiment, read
from anastyle.run import Conductor
from anastyle.stages import PLANS
from anastyle.sweeps import sweep as sweeping
from anastyle.sweeps.space import Choice, grid
from sweeps.tiny import ROOT, command, environment, write
from tools.postgresql import postgresql

__all__ = ["postgresql"]

FULL = ["only=full", "name=full"]  # the paper's row, so that there are stages to share


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a sweep of two trials, tracked; return its file."""
    folder = tmp_path_factory.mktemp("sweep")
    file = write(folder, trials=2)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "ANASTYLE_TRACKING", "RANK"):
            patch.delenv(name, raising=False)
        assert main(["sweep", str(file), *FULL]) == 0
    return file


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANASTYLE_TRACKING", "off")
    monkeypatch.setattr(sweeping, "LOOK_AGAIN", 0.2)


def folder_of(file: Path, name: str) -> Path:
    return file.parent / "runs" / name


def trials_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "trials.csv").open()))


def test_a_sweep_ends_in_a_table_a_report_and_the_best(done):
    folder = folder_of(done, "full")
    rows, report = trials_of(folder), (folder / "report.html").read_text()
    winner = min(rows, key=lambda row: float(row["fd_domain"]))

    assert [row["ending"] for row in rows] == ["finished", "finished"]
    assert f"| {winner['trial']} | finished | **" in (folder / "trials.md").read_text()
    assert "How the best was found" in report
    assert "http" not in report.split("<main>")[1], "a report asks the network for nothing"
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["variants"][f"trial-{int(winner['trial']):04d}"]["backbone"] == {
        "lora_rank": int(winner["backbone.lora_rank"])
    }


def test_stages_that_no_option_touches_are_trained_once(done):
    store = done.parent / "runs" / "store"

    counts = {stage: len([one for one in (store / stage).iterdir() if not one.name.endswith(".work")])
              for stage in ("disentangle", "align")}  # fmt: skip

    assert counts == {"disentangle": 1, "align": 1}
    assert len(trials_of(folder_of(done, "full"))) == 2


def test_the_best_is_an_experiment_whose_trainings_are_found_again(done):
    experiment = read(folder_of(done, "full") / "best.yaml")

    assert untrained(experiment) == []
    (config,) = experiment.variants.values()
    assert config["stages"]["generate"]["split"] == "test", "trials may have looked at validation; the best is tested"


def untrained(experiment: Experiment) -> list[str]:
    """Name the trainings of an experiment that are not there."""
    conductor = Conductor(experiment)
    nodes = [node for run in experiment.runs for node in conductor.plan(run).values()]
    return [node.stage for node in nodes if PLANS[node.stage].trained and not node.done]


def test_each_trial_is_a_child_run_of_the_sweeps(done):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{done.parent}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("full")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}

    assert set(runs) == {"full", "full/trial-0000/s42", "full/trial-0001/s42"}
    for name in ("full/trial-0000/s42", "full/trial-0001/s42"):
        assert runs[name].data.tags["mlflow.parentRunId"] == runs["full"].info.run_id
        assert runs[name].info.status == "FINISHED"
        assert "eval/fd_domain" in runs[name].data.metrics
        assert "backbone.lora_rank" in runs[name].data.params


def test_a_finished_sweep_does_nothing_but_say_so(done, capsys):
    before = {file: file.stat().st_mtime_ns for file in done.parent.rglob("*") if file.is_file()}

    assert main(["sweep", str(done), *FULL]) == 0

    assert "all 2 trials have ended; nothing to do" in capsys.readouterr().out
    after = {file: file.stat().st_mtime_ns for file in done.parent.rglob("*") if file.is_file()}
    assert {file.name for file in after if after[file] != before.get(file)} <= {".sweep.lock"}


def test_another_base_is_another_sweep(done, capsys):
    assert main(["sweep", str(done), *FULL, "stages.align.steps=3"]) == 2

    told = capsys.readouterr().err
    assert "holds trials of another experiment" in told
    assert "stages.align.steps: 2 there, 3 here" in told


def test_the_same_command_with_a_larger_total_runs_what_is_missing(done, capsys):
    assert main(["sweep", str(done), *FULL, "--dry-run", "sweep.trials=3"]) == 0
    assert "2 of 3 trials have ended" in capsys.readouterr().out

    assert main(["sweep", str(done), *FULL, "sweep.trials=3"]) == 0

    said = capsys.readouterr().out
    assert "once for all: disentangle, align" in said
    assert "trial-0002:" in said
    assert "trial-0001:" not in said
    assert len(trials_of(folder_of(done, "full"))) == 3


def test_several_objectives_end_in_a_pareto_set(done, capsys):
    space = "{stages.generate.guidance: {choice: [1.0, 2.0]}}"
    objective = "{fd_domain: minimize, cost/gflop: minimize}"
    drop = ["sweep.space.backbone.lora_rank=null", "sweep.space.stages.diffuse.lr=null"]
    drop.append("stages.validate=null")  # guidance is searched, not chosen
    words = [*FULL, "name=pareto", "sweep.sampler={name: grid}", f"sweep.objective={objective}", *drop]

    assert main(["sweep", str(done), *words, f"sweep.space={space}"]) == 0

    folder = folder_of(done, "pareto")
    rows = trials_of(folder)
    assert sorted(float(row["stages.generate.guidance"]) for row in rows) == [1.0, 2.0]
    assert "in the Pareto set" in capsys.readouterr().out
    assert "The Pareto set" in (folder / "report.html").read_text()
    variants = yaml.safe_load((folder / "best.yaml").read_text())["variants"]
    assert 1 <= len(variants) <= 2
    assert untrained(read(folder / "best.yaml")) == []


def test_a_metric_that_is_not_measured_stops_the_sweep_at_its_first_trial(done, capsys):
    words = [*FULL, "name=unmeasured", "sweep.objective={fd_domain: null, recall: maximize}"]

    assert main(["sweep", str(done), *words]) == 2
    assert "sweep.objective.recall: is not measured on this set. Measured: " in capsys.readouterr().err


def test_a_trial_that_learns_nothing_finite_is_pruned_and_the_sweep_goes_on(tmp_path, capsys):
    space = {"stages.diffuse.lr": {"choice": [1e30, 1e-3]}}
    file = write(tmp_path, trials=2, sampler={"name": "grid"}, space=space)

    assert main(["sweep", str(file)]) == 0

    endings = {row["stages.diffuse.lr"]: row for row in trials_of(folder_of(file, "tiny"))}
    assert endings["0.001"]["ending"] == "finished"
    assert endings["1e+30"]["ending"] == "pruned"
    assert "not finite" in endings["1e+30"]["reason"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_ranks_prune_at_the_same_step(tmp_path):
    pruner = {"name": "median", "n_startup_trials": 1, "every": 2}
    rates = Choice("stages.diffuse.lr", (1e-3, 0.3))
    seed = next(seed for seed in range(99) if grid([rates], seed)[0] == {rates.path: 1e-3})  # the better one first
    sampler, space = {"name": "grid", "seed": seed}, {rates.path: {"choice": list(rates.values)}}
    file = write(tmp_path, trials=2, pruner=pruner, sampler=sampler, space=space)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]

    ran = subprocess.run(
        [*launcher, str(ROOT / "launch" / "sweep.py"), str(file), "stages.diffuse.steps=8"],
        env=environment(), capture_output=True, text=True, timeout=560,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stderr[-3000:]
    rows = {row["stages.diffuse.lr"]: row for row in trials_of(folder_of(file, "tiny"))}
    assert rows["0.001"]["ending"] == "finished"
    assert rows["0.3"]["ending"] == "pruned"
    assert "others were better there" in rows["0.3"]["reason"]
    run = folder_of(file, "tiny") / f"trial-000{rows['0.3']['trial']}" / "seed-42"
    assert json.loads((run / "status.json").read_text())["status"] == "pruned"
    assert not list((tmp_path / "runs" / "store" / "diffuse").glob("*.work")), "nobody will go on with it"


def until(found: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 400
    while not found():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)


def training(file: Path) -> list[Path]:
    """Return the trainings that are under way, by their logs."""
    return list((file.parent / "runs" / "store").glob("diffuse/*.work/metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["journal", "postgresql"])
def test_two_workers_train_and_one_is_killed(kept, tmp_path, request):
    address = None if kept == "journal" else request.getfixturevalue("postgresql").database(f"s{os.urandom(4).hex()}")
    file = write(tmp_path, trials=3, storage=address)
    words = command(file, "stages.diffuse.steps=60", "stages.diffuse.checkpoint_every=5")
    killed, other = (subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) for _ in range(2))
    until(lambda: len(training(file)) == 2, "two trials train at once")

    killed.kill()
    killed.communicate()
    said, _ = other.communicate(timeout=560)

    assert other.returncode == 0
    assert [row["ending"] for row in trials_of(folder_of(file, "tiny"))] == ["finished"] * 3
    assert f"process {killed.pid} on" in said
    assert "is gone; its trial is taken up again" in said
    assert len(list((tmp_path / "runs" / "store" / "evaluate").iterdir())) == 3, "no trial was trained twice"


INTERRUPT = pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), INTERRUPT])
def test_a_worker_that_is_told_to_stop_gives_its_trial_back(number, code, tmp_path):
    file = write(tmp_path, trials=1)
    words = ["stages.diffuse.steps=4000"]
    worker = subprocess.Popen(command(file, *words), env=environment(), stdout=subprocess.PIPE, text=True)
    until(lambda: bool(training(file)), "a trial trains")

    worker.send_signal(number)
    worker.communicate(timeout=300)

    journal = [json.loads(line) for line in (folder_of(file, "tiny") / "optuna.journal").read_text().splitlines()]
    assert worker.returncode == code
    assert [line["state"] for line in journal if line["op_code"] == 6] == [4], "waiting, in Optuna's own words"
