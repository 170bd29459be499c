"""``anastyle doctor`` knows what breaks a run before it does, asks no network, and says the way out."""

import shutil
import socket
import sqlite3
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from anastyle import doctor, packages
from anastyle.cli import main
from anastyle.packages import below, drift, floors, installed, pairs

GOOD = {"torch": "2.13.0+cpu", "transformers": "5.23.0"}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "ANASTYLE_TRACKING", "ANASTYLE_WEIGHTS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def test_this_machine_is_fit_and_no_network_is_asked(tmp_path, monkeypatch, capsys):
    def offline(*words):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "create_connection", offline)
    monkeypatch.setattr(socket.socket, "connect", offline)

    code = main(["doctor", "--output", str(tmp_path / "runs")])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0, lines
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "note"}
    about = {line.split()[1] for line in lines[:-1]}
    assert about >= {"python", "packages", "versions", "gpu", "cpu", "memory", "output", "weights", "mlflow"}
    assert lines[-1].startswith("no problems")
    assert not (tmp_path / "runs").exists(), "it looks and leaves nothing"


@pytest.mark.parametrize(
    ("more", "way_out"),
    [
        ({"torchvision": "0.28.0"}, "pip uninstall torchvision"),
        ({"timm": "1.0.0"}, "pip uninstall timm"),
        ({"torch-fidelity": "0.4.0"}, "pip uninstall torch-fidelity"),
        ({"clean-fid": "0.1.35"}, "pip uninstall clean-fid"),
    ],
)
def test_packages_that_break_ours_are_named(more, way_out):
    (finding,) = pairs({**GOOD, **more})

    assert finding.state == "problem"
    assert way_out in finding.text
    assert [finding.state for finding in pairs(GOOD)] == ["ok"]


def test_a_torchvision_of_the_same_build_is_only_noted():
    assert [finding.state for finding in pairs({**GOOD, "torchvision": "0.28.0+cpu", "timm": "1"})] == ["note"]
    assert [finding.state for finding in pairs({"torch": "2.13.0", "torchvision": "0.28.0"})] == ["note"]


def test_versions_below_a_floor_are_a_problem_and_others_than_tested_a_note():
    needed = [Requirement("torch>=2.10"), Requirement("mlflow>=3.10"), Requirement("gone>=1")]
    (finding,) = below({"torch": "2.9.1", "mlflow": "3.17.2"}, needed)
    assert finding.state == "problem"
    assert 'pip install "torch>=2.10" "gone>=1"' in finding.text
    assert "mlflow" not in finding.text

    (finding,) = drift({"torch": "2.14.0+cpu", "mlflow": "3.17.2"}, {"torch": "2.13.0", "mlflow": "3.17.2"})
    assert finding == ("note", "1 packages as tested, 1 not: torch 2.14.0+cpu (tested 2.13.0)")
    assert [finding.state for finding in drift(GOOD, {"torch": "2.13.0"})] == ["ok"]


def test_an_installed_package_knows_its_floors_and_the_tested_set():
    assert {"torch", "mlflow", "transformers"} <= {need.name for need in floors()} <= set(installed())
    assert packages.tested()["torch"].startswith("2.")


def state_of(findings):
    (finding,) = findings
    return finding.state


def test_disks_that_cannot_take_a_run_are_a_problem(tmp_path, monkeypatch):
    assert state_of(doctor.disk(tmp_path / "a" / "b")) == "ok"
    (tmp_path / "file").write_text("")
    assert state_of(doctor.disk(tmp_path / "file" / "runs")) == "problem"
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1 << 20))
    assert state_of(doctor.disk(tmp_path)) == "problem"


def test_a_tracking_store_is_looked_at(tmp_path, monkeypatch):
    assert state_of(doctor.tracking(tmp_path)) == "ok"
    (tmp_path / "mlflow.db").write_text("no database")
    assert state_of(doctor.tracking(tmp_path)) == "problem"
    (tmp_path / "mlflow.db").unlink()
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("create table runs (run_uuid text)")
    assert doctor.tracking(tmp_path)[0].text.endswith("0 runs")

    with socket.create_server(("127.0.0.1", 0)) as there:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{there.getsockname()[1]}")
        (finding,) = doctor.tracking(tmp_path)
        assert finding.state == "ok"
        assert "hunter2" not in finding.text
    (finding,) = doctor.tracking(tmp_path)
    assert finding.state == "problem"
    assert "anastyle sync" in finding.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    assert state_of(doctor.tracking(tmp_path)) == "problem"


def test_what_the_environment_asks_for_is_held_against_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert state_of(doctor.cpu()) == "note"
    monkeypatch.setenv("ANASTYLE_WEIGHTS", str(tmp_path / "nowhere"))
    assert doctor.weights()[0].state == "problem"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert state_of(doctor.deepspeed({"deepspeed": "0.19.8"})) == "problem"
    assert state_of(doctor.deepspeed({})) == "ok"


@pytest.mark.parametrize(("content", "limit"), [("max\n", float("inf")), ("1024\n", 1024), (None, float("inf"))])
def test_a_containers_limit_is_the_memory_there_is(tmp_path, content, limit):
    file = Path(tmp_path / "memory.max")
    if content is not None:
        file.write_text(content)

    assert doctor.container_limit(file) == limit


def test_a_problem_ends_with_its_own_code(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")

    assert main(["doctor", "--output", str(tmp_path)]) == 7
    assert "1 problem," in capsys.readouterr().out
