"""Tracking: JSON lines are the truth, MLflow gets each number once, and its failures cost nothing."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from anastyle.jsonlines import JsonLines
from anastyle.mlflow_link import Link
from anastyle.outbox import flatten
from anastyle.speaker import is_main
from anastyle.tracking import Study, update_status

CONFIG = {"fuser": {"name": "hffm", "dims": [1, 8]}, "stages": {"align": {"note": "x" * 400}}, "masks": None}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An MLflow database without runs: creating one takes seconds, copying it none."""
    folder = tmp_path_factory.mktemp("database")
    assert Link(folder, "Default").attempt(folder, lambda client, experiment: experiment) == "0"
    return folder / "mlflow.db"


@pytest.fixture
def output(tmp_path, database, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "ANASTYLE_TRACKING", "RANK"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(database, tmp_path / "mlflow.db")
    return tmp_path


def client_of(output: Path):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{output}/mlflow.db")


def runs_of(output: Path, experiment="phantom"):
    client = client_of(output)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, {run.info.run_name: run for run in found}


def history(client, run, key):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_study_is_a_parent_run_with_a_child_for_each_variant_and_seed(output):
    with Study(output, "phantom", {"name": "phantom"}) as study:
        for seed in (42, 43):
            with study.run("full", seed, CONFIG) as tracker:
                tracker.log({"train/align/loss": 1.5, "perf/align/images_per_s": 10.0}, 1)
                tracker.image("samples/p 1", Image.new("RGB", (8, 8), "red"), step=1)
        (output / "table.md").write_text("| a |")
        study.artifact(output / "table.md")

    client, runs = runs_of(output)
    assert set(runs) == {"phantom", "phantom/full/s42", "phantom/full/s43"}
    parent, child = runs["phantom"], runs["phantom/full/s43"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.data.tags["variant"], child.data.tags["seed"]) == ("full", "43")
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert history(client, child, "train/align/loss") == [(1, 1.5)]
    assert child.data.params["fuser.name"] == "hffm"
    assert len(child.data.params["stages.align.note"]) == 250
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {"study.yaml", "table.md"}
    assert {file.path for file in client.list_artifacts(child.info.run_id)} == {"config.yaml", "images"}
    assert child.info.artifact_uri.startswith((output / "mlartifacts").as_uri())
    folder = output / "phantom" / "full" / "seed-43"
    assert lines(folder)[0]["train/align/loss"] == 1.5
    assert (folder / "images" / "samples" / "p 1-1.png").is_file()
    assert json.loads((folder / "status.json").read_text()) == {"tracking_failures": 0}


def test_the_same_study_goes_on_in_the_same_runs_and_nothing_is_doubled(output):
    stage = output / "stage.jsonl"
    stage.write_text("".join(json.dumps({"step": step, "time": 1000 + step, "train/loss": 1 / step}) + "\n"
                             for step in (1, 2, 3)))  # fmt: skip
    for steps in ([1, 2], [2, 3]):
        with Study(output, "phantom", {}) as study, study.run("full", 42, CONFIG) as tracker:
            tracker.replay(stage)
            for step in steps:
                tracker.log({"eval/fd": float(step)}, step)
            tracker.image("grid", Image.new("RGB", (8, 8), "red"))

    client, runs = runs_of(output)
    assert len(runs) == 2
    run = runs["phantom/full/s42"]
    assert history(client, run, "eval/fd") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert [point.timestamp for point in client.get_metric_history(run.info.run_id, "train/loss")] == [1001, 1002, 1003]
    assert len(client.list_artifacts(run.info.run_id, "images")) == 2  # png and webp, once
    assert len(lines(output / "phantom" / "full" / "seed-42")) == 6


def test_another_configuration_or_a_fresh_start_is_another_run(output):
    with Study(output, "phantom", {}) as study:
        for config, fresh in ((CONFIG, False), ({**CONFIG, "masks": 1}, False), ({**CONFIG, "masks": 1}, True)):
            with study.run("full", 42, config, fresh=fresh) as tracker:
                tracker.log({"train/loss": 1.0}, 1)

    client = client_of(output)
    experiment = client.get_experiment_by_name("phantom")
    assert len(client.search_runs([experiment.experiment_id])) == 4
    folder = output / "phantom" / "full" / "seed-42"
    assert len(lines(folder)) == 1
    assert (folder / "metrics.previous.jsonl").is_file()


def test_what_a_killed_process_had_not_sent_is_sent_by_the_next(output):
    study = Study(output, "phantom", {})
    tracker = study.run("full", 42, CONFIG)
    tracker.log({"train/loss": 1.0}, 1)
    tracker.flush()
    assert study._sender.close()
    tracker.log({"train/loss": 2.0}, 2)  # and here the process dies
    with (tracker.folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3, "ti')

    with Study(output, "phantom", {}) as study, study.run("full", 42, CONFIG) as tracker:
        tracker.log({"train/loss": 3.0}, 3)

    client, runs = runs_of(output)
    assert history(client, runs["phantom/full/s42"], "train/loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert [line["step"] for line in lines(tracker.folder)] == [1, 2, 3]


def test_many_metrics_go_in_few_requests(output, monkeypatch):
    from mlflow import MlflowClient

    sizes = []
    log_batch = MlflowClient.log_batch

    def counted(self, run_id, metrics=(), **rest):
        sizes.append(len(metrics))
        return log_batch(self, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)

    with Study(output, "phantom", {}) as study, study.run("full", 42, {}) as tracker:
        sizes.clear()
        for step in range(1, 601):
            tracker.log({"train/a": 1.0, "train/b": 2.0}, step)

    assert sum(sizes) == 1200
    assert len(sizes) <= 6  # two chunks, and one every few seconds of a slow machine
    assert max(sizes) <= 1000
    client, runs = runs_of(output)
    assert len(history(client, runs["phantom/full/s42"], "train/b")) == 600


def test_a_run_deleted_by_hand_is_made_anew_with_all_its_numbers(output):
    with Study(output, "phantom", {}) as study, study.run("full", 42, CONFIG) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
    client, runs = runs_of(output)
    client.delete_run(runs["phantom/full/s42"].info.run_id)

    with Study(output, "phantom", {}) as study, study.run("full", 42, CONFIG) as tracker:
        tracker.log({"train/loss": 2.0}, 2)

    client, runs = runs_of(output)
    assert history(client, runs["phantom/full/s42"], "train/loss") == [(1, 1.0), (2, 2.0)]


def test_a_server_that_is_down_costs_one_warning_and_is_fed_later(output, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    caplog.set_level(logging.WARNING, "anastyle")
    with Study(output, "phantom", {}) as study, study.run("full", 42, CONFIG) as tracker:
        for step in range(1, 100):
            tracker.log({"train/loss": 1.0}, step)
            tracker.flush()

    warnings = [record.getMessage() for record in caplog.records if record.name == "anastyle"]
    assert len(warnings) == 2  # when it failed, and at the end
    assert "the same command again sends what is missing" in " ".join(warnings[0].split())
    assert "anastyle sync" in warnings[1]
    assert "secret" not in "".join(warnings)
    assert len(lines(tracker.folder)) == 99
    failures = json.loads((output / "phantom" / "status.json").read_text())["tracking_failures"]
    assert 1 <= failures <= 3  # it is left alone for a minute at a time

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with Study(output, "phantom", {}) as study, study.run("full", 42, CONFIG):
        pass
    client, runs = runs_of(output)
    assert len(history(client, runs["phantom/full/s42"], "train/loss")) == 99


def test_numbers_that_are_not_finite_are_null_in_the_file_and_left_out_of_mlflow(output):
    with Study(output, "phantom", {}) as study, study.run("full", 42, CONFIG) as tracker:
        tracker.log({"eval/fd": float("nan"), "eval/kid": 0.5}, 1)

    _, runs = runs_of(output)
    assert lines(tracker.folder)[0]["eval/fd"] is None
    assert runs["phantom/full/s42"].data.metrics == {"eval/kid": 0.5}


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"),
                                               (SystemExit(143), "KILLED"), (SystemExit(4), "FAILED")])  # fmt: skip
def test_how_a_run_ended_is_kept(output, error, status):
    with pytest.raises(BaseException), Study(output, "phantom", {}) as study, study.run("full", 42, {}):  # noqa: B017, PT011
        raise error

    _, runs = runs_of(output)
    assert {run.info.status for run in runs.values()} == {status}


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")

    with Study(tmp_path / "out", "phantom", {}) as study, study.run("full", 42, CONFIG) as tracker:
        tracker.log({"a": 1.0}, 1)
        tracker.replay(tmp_path / "none.jsonl")
        tracker.image("a", Image.new("RGB", (2, 2)))
        tracker.params({"a": 1})
        tracker.artifact(tmp_path / "none")
        tracker.flush()
        study.artifact(tmp_path / "none")

    assert not is_main()
    assert not (tmp_path / "out").exists()


def test_switched_off_there_is_no_mlflow_but_the_file_is_whole(tmp_path):
    script = f"""
import sys
from pathlib import Path
from anastyle.tracking import Study
with Study(Path({str(tmp_path)!r}), "phantom", {{}}) as study, study.run("full", 42, {{"a": 1}}) as tracker:
    tracker.log({{"train/loss": 1.0}}, 1)
assert "mlflow" not in sys.modules and "torch" not in sys.modules
"""
    environment = {"PYTHONPATH": ":".join(sys.path), "ANASTYLE_TRACKING": "off"}

    subprocess.run([sys.executable, "-c", script], env=environment, check=True)

    assert lines(tmp_path / "phantom" / "full" / "seed-42")[0]["train/loss"] == 1.0
    assert not (tmp_path / "mlflow.db").exists()


def test_a_refused_number_costs_a_count_and_nothing_else(output):
    with Study(output, "phantom", {}) as study, study.run("full", 42, CONFIG):
        pass
    with Study(output, "phantom", {}) as study, study.run("full", 42, CONFIG) as tracker:
        tracker.params({"masks": "another value"})  # MLflow lets no parameter change
        tracker.log({"train/loss": 1.0}, 1)

    client, runs = runs_of(output)
    assert history(client, runs["phantom/full/s42"], "train/loss") == [(1, 1.0)]
    assert json.loads((tracker.folder / "status.json").read_text()) == {"tracking_failures": 1}


def test_leaves_are_dotted_and_cut():
    flat = flatten({"a": {"b": {"c": 1}, "d": [1, 2], "e": {}}, "f|g": "x" * 300})

    assert flatten({}) == {}
    assert flat == {"a.b.c": "1", "a.d": "[1, 2]", "a.e": "{}", "f_g": "x" * 250}


def test_a_status_keeps_the_fields_of_others(tmp_path):
    update_status(tmp_path / "run", state="running")
    update_status(tmp_path / "run", tracking_failures=2)

    assert json.loads((tmp_path / "run" / "status.json").read_text()) == {"state": "running", "tracking_failures": 2}


def test_json_lines_end_before_what_is_torn(tmp_path):
    file = JsonLines(tmp_path / "x.jsonl")
    for step in (1, 2, 3):
        file.append({"step": step})
    with file.path.open("ab") as stream:
        stream.write(b'\x00\x00\n{"step": 5}\n')

    assert [line["step"] for line, _ in file.read()] == [1, 2, 3]
    file.truncate(2)
    assert file.path.read_text() == '{"step": 1}\n{"step": 2}\n'
