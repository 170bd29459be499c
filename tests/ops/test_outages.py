"""A tracking server that is down, slow, full or foolish: a training does not notice, and nothing is lost.

Also run as a program, ``test_outages.py OUTPUT``: a short training whose tracking is timed.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from anastyle import Batch
from anastyle.cli import main
from anastyle.mlflow_link import wake_mlflow
from anastyle.tracking import Study
from anastyle.trainer import Settings, fit

SLOW = 30.0  # seconds until an answer
ANSWERS = {
    "errors": (500, {"error_code": "INTERNAL_ERROR", "message": "boom"}),
    "disk full": (500, {"error_code": "INTERNAL_ERROR", "message": "(OperationalError) No space left on device"}),
    "no MLflow": (200, {"hello": "world"}),
    "not allowed": (403, {"error_code": "PERMISSION_DENIED", "message": "who are you?"}),
}
SETTINGS = Settings(steps=30, batch_size=4, lr=0.01, weights={"fit": 1.0}, log_every=1)


class Line(nn.Module):
    """The least there is to train."""

    name = "line"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(4, 4)

    def forward(self, batch, step):
        return {"fit": (self.body(batch.image) - batch.image).square().mean()}


def batches(start, rank, world, size):
    for number in range(start, 1000):
        data = torch.randn(4, 4, generator=torch.Generator().manual_seed(number))
        yield Batch([str(number)] * 4, torch.arange(4), image=data)


class Timed:
    """A tracker that knows how long it was waited for."""

    def __init__(self, tracker) -> None:
        self.tracker, self.seconds = tracker, 0.0

    def log(self, metrics, step):
        began = time.monotonic()
        self.tracker.log(metrics, step)
        self.tracker.flush()
        self.seconds += time.monotonic() - began


def train(output: Path) -> float:
    """Train a line under a tracker; return the seconds that tracking held it up, MLflow's import apart."""
    wake_mlflow()
    began = time.monotonic()
    study = Study(output, "study", {"name": "study"})
    tracker = Timed(study.run("line", 42, {"note": "x"}))
    tracker.seconds = time.monotonic() - began
    fit(Line(), batches, SETTINGS, folder=output / "work", seed=1, examples=100, tracker=tracker)
    began = time.monotonic()
    tracker.tracker.close()
    study.close()
    return tracker.seconds + time.monotonic() - began


def losses(output: Path) -> list[tuple[int, float]]:
    file = output / "study" / "line" / "seed-42" / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [(line["step"], line["train/line/loss"]) for line in lines]


@pytest.fixture
def server(request):
    """A fake server that answers every request in the same foolish way; yields its address and what was asked."""
    kind, asked = request.param, []
    if kind == "down":
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{unused.getsockname()[1]}", asked
        return
    over = threading.Event()

    class Foolish(BaseHTTPRequestHandler):
        def answer(self):
            asked.append(self.path)
            status, body = ANSWERS.get(kind, (200, {}))
            if kind == "slow":
                over.wait(SLOW)
            content = json.dumps(body).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # nobody waits any more

        do_GET = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Foolish) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}", asked
        over.set()
        http.shutdown()


@pytest.fixture
def clean(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("MLFLOW", "ANASTYLE"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def untracked(tmp_path_factory):
    """The losses of the same training without MLflow."""
    output = tmp_path_factory.mktemp("untracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANASTYLE_TRACKING", "off")
        train(output)
    return losses(output)


@pytest.mark.parametrize("server", ["down", "slow", *ANSWERS], indirect=True)
def test_a_training_does_not_notice_a_server_that_fails(tmp_path, clean, monkeypatch, caplog, server, untracked):
    address, asked = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    caplog.set_level(logging.WARNING, "anastyle")

    held_up = train(tmp_path)

    assert losses(tmp_path) == untracked
    assert len(untracked) == 30
    assert held_up < 1 + 4, "a second, and room for a machine with much else to do"
    said = [record.getMessage() for record in caplog.records if record.name == "anastyle"]
    assert "`anastyle sync" in said[-1]
    assert len(said) <= 2
    assert asked or "refused" in said[0], "nobody was there, or was not asked"


@pytest.mark.parametrize("server", ["slow"], indirect=True)
def test_a_process_does_not_wait_for_a_server_that_is_slow(tmp_path, server, untracked):
    address, asked = server
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "ANASTYLE"))}
    every = {**kept, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": address}

    done = subprocess.run([sys.executable, __file__, str(tmp_path)], env=every, capture_output=True, text=True)
    ended = time.time()

    assert done.returncode == 0, done.stderr
    assert asked
    assert losses(tmp_path) == untracked
    assert ended - float(done.stdout) < SLOW / 2, "the process ends while the server still thinks"
    assert "Traceback" not in done.stderr


def test_what_an_outage_kept_back_is_sent_once(tmp_path, clean, monkeypatch, capsys, untracked):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    train(tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)

    assert main(["sync", str(tmp_path)]) == 0
    first = capsys.readouterr().out
    assert main(["sync", str(tmp_path / "study" / "line" / "seed-42")]) == 0
    second = capsys.readouterr().out

    assert "study/line/s42: " in first
    assert "metrics sent" in first
    assert second == "study/line/s42: nothing left to send\n"
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == {"study": "FINISHED", "study/line/s42": "FINISHED"}
    child = next(run for run in runs if run.info.run_name == "study/line/s42")
    history = client.get_metric_history(child.info.run_id, "train/line/loss")
    assert [(point.step, point.value) for point in history] == untracked
    assert child.data.params["note"] == "x"


def test_sync_says_that_a_server_is_not_there(tmp_path, clean, monkeypatch, capsys):
    with Study(tmp_path, "study", {}, enabled=False) as study, study.run("line", 42, {}) as tracker:
        tracker.log({"a": 1.0}, 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")

    code = main(["sync", str(tmp_path)])

    said = capsys.readouterr().err
    assert code == 3
    assert "MLflow at http://127.0.0.1:9 failed" in said
    assert "2 of the runs may have something left to tell" in said
    assert len(said.splitlines()) <= 5
    assert main(["sync", str(tmp_path / "nowhere")]) == 2


if __name__ == "__main__":
    train(Path(sys.argv[1]))
    print(time.time(), flush=True)
