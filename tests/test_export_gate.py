"""Export asks what is known of a run's memorisation: it refuses copies, unless somebody says why not."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anastyle.checkpoint import write_folder
from anastyle.cli import main
from anastyle.evaluation.memorisation.record import FILE, Memorisation
from anastyle.evaluation.values import Value
from anastyle.painting.finished import FinishedRun

RATE = Value(0.512, 0.47, 0.554, floor=0.02, n=384, protocol="Copy rate: share of 384 generated images")
REASON = "copy rate 51.2 % (95 % interval 47.0 % to 55.4 %) of 384 generated images"
FAILED = Memorisation("failed", REASON, limit=0.07, values={"copy_rate": RATE})


STAGES = ("diffuse", "evaluate")


def finished_run(folder: Path, found: Memorisation | None, stages: tuple[str, ...] = STAGES) -> Path:
    """Write the records of a run that came to its end."""
    run = folder / "runs" / "study" / "full" / "seed-42"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("backbone: {name: compact_dit}\nstages: {}\n")
    (run / "status.json").write_text(json.dumps({"status": "finished", "stages": dict.fromkeys(stages, "0a")}))
    for stage in stages:
        with write_folder(folder / "runs" / "store" / stage / "0a") as stored:
            if stage == "evaluate":
                values = found.values if found else {}
                text = json.dumps({name: value.to_json() for name, value in values.items()})
                (stored / "values.json").write_text(text)
                if found:
                    found.write(stored)
    return run


class Backbone:
    """Exports one format."""

    exports = ("adapter",)

    def export(self, kind: str, folder: Path, chain: Any) -> None:
        folder.mkdir()


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the parts of a run, which export would rebuild."""
    monkeypatch.setattr(FinishedRun, "chain", lambda run: SimpleNamespace(backbone=Backbone()))


def export(run: Path, out: Path, *words: str) -> int:
    return main(["export", str(run), str(out), *words])


def test_a_run_that_copies_is_not_exported(tmp_path: Path, capsys: Any) -> None:
    run = finished_run(tmp_path, FAILED)

    assert export(run, tmp_path / "out") == 6

    error = capsys.readouterr().err
    assert len(error.splitlines()) <= 5
    assert "study/full/seed-42: is not exported, because it copies its training images" in error
    assert REASON in error
    assert "memorisation.png" in error
    assert "--accept-risk REASON" in error
    assert not (tmp_path / "out").exists()


def test_an_accepted_risk_is_told_in_the_card(tmp_path: Path, capsys: Any) -> None:
    run = finished_run(tmp_path, FAILED)

    assert export(run, tmp_path / "out", "--accept-risk", "the set is\npublic") == 0

    card = (tmp_path / "out" / "README.md").read_text()
    assert f"- verdict: **failed**; {REASON}" in card
    assert "- protocol: Copy rate: share of 384" in card
    assert "- risk accepted: the set is public\n" in card
    assert f"Memorisation: failed, {REASON}" in capsys.readouterr().out


def test_an_empty_reason_is_none(tmp_path: Path, capsys: Any) -> None:
    run = finished_run(tmp_path, FAILED)

    assert export(run, tmp_path / "out", "--accept-risk", " ") == 2
    assert "--accept-risk: is empty" in capsys.readouterr().err


@pytest.mark.parametrize("verdict", ["passed", "undefined"])
def test_another_verdict_is_told_and_lets_through(tmp_path: Path, verdict: Any, capsys: Any) -> None:
    run = finished_run(tmp_path, Memorisation(verdict, "because of this"))

    assert export(run, tmp_path / "out") == 0

    card = (tmp_path / "out" / "README.md").read_text()
    assert f"- verdict: **{verdict}**; because of this" in card
    assert "risk accepted" not in card
    assert f"Memorisation: {verdict}, because of this." in capsys.readouterr().out


@pytest.mark.parametrize("stages", [("diffuse",), STAGES])
def test_what_was_not_measured_is_told(tmp_path: Path, stages: tuple[str, ...], capsys: Any) -> None:
    run = finished_run(tmp_path, None, stages)

    assert export(run, tmp_path / "out") == 0

    assert "- verdict: not measured" in (tmp_path / "out" / "README.md").read_text()
    assert "Memorisation: was not measured" in capsys.readouterr().out


def test_a_broken_record_is_not_taken_for_none(tmp_path: Path, capsys: Any) -> None:
    run = finished_run(tmp_path, FAILED)
    file = tmp_path / "runs" / "store" / "evaluate" / "0a" / FILE
    file.write_text("x" * file.stat().st_size)  # as long as it was: the folder still counts as whole

    assert export(run, tmp_path / "out") == 2
    assert "not a record of memorisation" in capsys.readouterr().err
