"""MLflow as people run it: a server on PostgreSQL that serves artifacts, dies and comes back; SQLite shared by many."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from anastyle.cli import main
from anastyle.tracking import Study
from tools.mlflow_server import MLflowServer
from tools.postgresql import postgresql  # noqa: F401

CONFIG = {"fuser": {"name": "hffm"}, "note": "x" * 400}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("MLFLOW", "ANASTYLE"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def server(postgresql, tmp_path_factory):  # noqa: F811
    """A running server."""
    server = MLflowServer(postgresql.database("mlflow"), tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


def client_of(address):
    from mlflow import MlflowClient

    return MlflowClient(address)


def run_named(client, experiment, name):
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return next(run for run in found if run.info.run_name == name)


def history(client, run, key):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]


def texts(folder):
    """Return every text that was written below a folder."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_a_run_tells_the_server_all_there_is(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")

    with Study(tmp_path, "whole", {"name": "whole"}) as study, study.run("full", 42, CONFIG) as tracker:
        tracker.dataset("phantom", "f" * 64, "data/phantom", {"train": 48, "test": 32})
        tracker.log({"train/loss": 1.0}, 1)
        tracker.image("samples", Image.new("RGB", (8, 8), "red"), step=1)
        time.sleep(1)
        (tmp_path / "table.md").write_text("| a |")
        study.artifact(tmp_path / "table.md")
    assert main(["sync", str(tmp_path)]) == 0

    client = client_of(server.url)
    parent, child = run_named(client, "whole", "whole"), run_named(client, "whole", "whole/full/s42")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {parent.info.status, child.info.status} == {"FINISHED"}
    assert history(client, child, "train/loss") == [(1, 1.0)]
    assert child.data.metrics["system/system_memory_usage_megabytes"] > 0
    assert "system/cpu_utilization_percentage" in child.data.metrics
    assert child.data.params["fuser.name"] == "hffm"
    assert len(child.data.params["config.sha256"]) == 64
    assert max(map(len, child.data.params.values())) <= 250
    (used,) = child.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("phantom", "f" * 32)
    assert json.loads(used.dataset.profile) == {"train": 48, "test": 32}
    assert child.info.artifact_uri.startswith("mlflow-artifacts:")
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {"study.yaml", "table.md"}
    assert len(client.list_artifacts(child.info.run_id, "images")) == 2  # png and webp
    fetched = client.download_artifacts(parent.info.run_id, "table.md", str(tmp_path))
    assert Path(fetched).read_text() == "| a |"


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_has_every_number_once(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setattr("anastyle.mlflow_link.RETRY_AFTER", 0.5)
    study = Study(tmp_path, "outage", {})
    tracker = study.run("full", 42, CONFIG)
    for step in range(1, 301):
        tracker.log({"train/a": step / 7, "train/b": float(step)}, step)
        tracker.flush()
        time.sleep(0.005)
        if step == 100:
            server.kill()
            tracker.image("during", Image.new("RGB", (8, 8), "red"), step=step)
        if step == 200:
            server.start()
    tracker.close()
    study.close()
    assert main(["sync", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["sync", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("nothing left to send") == 2

    forgotten = tmp_path / "outage" / "full" / "seed-42" / "mlflow.json"
    told = json.loads(forgotten.read_text())
    told[server.url] |= {"sent": {}, "run_id": None, "creating": True}  # as if no answer had ever come back
    forgotten.write_text(json.dumps(told))
    assert main(["sync", str(tmp_path)]) == 0

    client = client_of(server.url)
    experiment = client.get_experiment_by_name("outage").experiment_id
    assert len(client.search_runs([experiment])) == 2, "no run was made twice"
    child = run_named(client, "outage", "outage/full/s42")
    assert history(client, child, "train/b") == [(step, float(step)) for step in range(1, 301)]
    assert history(client, child, "train/a") == [(step, step / 7) for step in range(1, 301)]
    assert len(client.list_artifacts(child.info.run_id, "images")) == 2


def test_a_database_named_by_its_password_leaves_none_behind(postgresql, tmp_path, monkeypatch):  # noqa: F811
    store = postgresql.database("direct")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    config = {**CONFIG, "storage": store, "other": "http://me:hunter2@host/?password=swordfish&a=1"}

    with Study(tmp_path, "direct", {"sweep": {"storage": store}}) as study, study.run("full", 42, config) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
    monkeypatch.setattr("anastyle.sender.PATIENCE", 60.0)
    assert main(["sync", str(tmp_path)]) == 0

    client = client_of(store)
    child = run_named(client, "direct", "direct/full/s42")
    assert history(client, child, "train/loss") == [(1, 1.0)]
    assert child.info.artifact_uri.startswith((tmp_path / "mlartifacts").as_uri())
    told = repr(child.to_dictionary()) + repr(run_named(client, "direct", "direct").to_dictionary())
    for secret in (postgresql.password, "hunter2", "swordfish"):
        assert secret not in told
        leaks = [file for file, content in texts(tmp_path).items() if secret.encode() in content]
        assert not leaks


def test_four_processes_at_once_share_a_new_database(tmp_path):
    script = """
import sys
from pathlib import Path
from anastyle.tracking import Study
with Study(Path(sys.argv[1]), "shared", {}) as study, study.run("full", int(sys.argv[2]), {}) as tracker:
    for step in range(1, 4):
        tracker.log({"train/loss": float(step)}, step)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(seed)], env=environment,
                         stderr=subprocess.PIPE, text=True)
        for seed in range(4)
    ]  # fmt: skip
    said = [process.communicate(timeout=400)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], said
    assert "failed" not in "".join(said)
    client = client_of(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("shared").experiment_id
    runs = client.search_runs([experiment])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert sorted(run.info.run_name for run in runs) == ["shared", *(f"shared/full/s{seed}" for seed in range(4))]
    for seed in range(4):
        run = run_named(client, "shared", f"shared/full/s{seed}")
        assert history(client, run, "train/loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


@pytest.mark.parametrize(
    ("decided", "silent"),
    [({}, True), ({"MLFLOW_DISABLE_TELEMETRY": "false"}, False)],
)
def test_telemetry_is_off_unless_it_is_asked_for(decided, silent):
    script = (
        "from anastyle.mlflow_link import wake_mlflow; wake_mlflow()\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled; print(is_telemetry_disabled())"
    )
    unwanted = ("PYTEST", "MLFLOW", "CI", "GITHUB_", "DO_NOT_TRACK")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    environment = {**kept, "PYTHONPATH": os.pathsep.join(sys.path), **decided}

    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == str(silent)
