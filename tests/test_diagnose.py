"""A finished study, diagnosed: real images, the autoencoder, codes of words and of images, and what each code holds."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from anastyle.checkpoint import load_tensors
from anastyle.cli import main
from anastyle.evaluation import diagnose as diagnosing
from anastyle.evaluation.measure import values_of
from anastyle.experiment import read
from anastyle.interfaces import FactorDims, Factors
from anastyle.painting.finished import FinishedRun
from anastyle.run import run_experiment

SMOKE = str(Path(__file__).parents[1] / "experiments" / "smoke.yaml")
SMALL = ["data.train=48", "data.validation=8", "data.test=56", "stages.disentangle.steps=2", "stages.align.steps=4",
         "stages.diffuse.steps=2", "stages.generate.images=16", "stages.generate.steps=2", "stages.generate.grid=4",
         "stages.generate.swaps=0", "stages.evaluate.judge_steps=2", "stages.evaluate.domain_steps=2",
         "stages.evaluate.bootstrap=20", "stages.evaluate.memorisation=false",
         "only=[full,no_disentanglement]"]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a row with codes and one without, and return the study's folder."""
    output = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANASTYLE_TRACKING", "off")
        assert run_experiment(read(SMOKE, [*SMALL, f"output={output}"])) == 0
    return output / "smoke"


@pytest.fixture(scope="module")
def full(study: Path) -> Path:
    """Return the run whose words are read into codes, diagnosed."""
    folder = study / "full" / "seed-42"
    assert main(["diagnose", str(folder)]) == 0
    return folder


def lines(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    with (folder / "diagnosis.csv").open() as file:
        return {(line["table"], line["row"], line["factor"]): line for line in csv.DictReader(file)}


def test_every_row_of_the_table_is_there(full: Path) -> None:
    text = (full / "diagnosis.md").read_text()

    assert [line.split(" | ")[0].lstrip("| ") for line in text.splitlines() if line.startswith("| ")][:6] == [
        "images",
        "real held-out images",
        "the same after the autoencoder",
        "row no_disentanglement",
        "this run, full: codes read off the words",
        "this run: codes of the images themselves",
    ]
    codes = ["visual anatomy", "visual style", "text anatomy", "text style", "fused anatomy tokens",
             "fused style tokens"]  # fmt: skip
    assert list(dict.fromkeys(row for table, row, _ in lines(full) if table == "probe")) == codes
    assert "Below 95 % in the text-read code of its own kind:" in text
    assert "How loud a factor is" in text


def test_the_numbers_are_those_the_study_measured(full: Path) -> None:
    stored, found = values_of(FinishedRun.open(full).stored("evaluate")), lines(full)

    for factor in ("shape", "palette"):
        value = stored[f"factor/{factor}"]
        rows = {
            "real held-out images": value.ceiling,
            "the same after the autoencoder": value.decoded,
            "this run, full: codes read off the words": value.value,
        }
        assert {row: float(found["accuracy", row, factor]["value"]) for row in rows} == pytest.approx(rows)
    other = values_of(FinishedRun.open(full.parents[1] / "no_disentanglement" / "seed-42").stored("evaluate"))
    assert float(found["accuracy", "row no_disentanglement", "mean"]["value"]) == pytest.approx(
        other["factor_mean"].value
    )


def test_codes_are_painted_from_the_runs_own_noise_and_guidance(full: Path) -> None:
    case = diagnosing.opened(FinishedRun.open(full), 16)
    read = [reading.factors for reading in diagnosing.read(case, 16)]

    again = diagnosing.painted(case, read[0])  # type: ignore[arg-type]

    own = load_tensors(case.run.stored("generate") / "images.safetensors")["images"]
    assert (again.int() - own.int()).abs().max() <= 1
    assert (diagnosing.painted(case, Factors(*(f.flip(0) for f in read[0]))).int() - own.int()).abs().max() > 1  # type: ignore[union-attr]


def test_a_run_of_words_has_the_rows_that_make_sense(study: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["diagnose", str(study / "no_disentanglement" / "seed-42"), "--images", "12"]) == 0

    told = capsys.readouterr().out
    assert "| this run, no_disentanglement: painted from its words | 12 |" in told
    assert "| row full | " in told
    assert "| fused words |" in told
    assert "codes of the images themselves" not in told
    assert "trains no encoder" in told
    assert "No code of a factor is read off the words" in told


def test_factors_of_the_aligners_own_are_not_painted_from_images(full: Path) -> None:
    case = diagnosing.opened(FinishedRun.open(full), 12)
    assert diagnosing.same_units(case)

    case.chain.reader.aligner.dims = FactorDims((1, 5), (1, 6))

    assert not diagnosing.same_units(case)
    assert "the aligner reads factors of its own, 1 x 5 and 1 x 6" in case.notes[-1]


def test_references_are_said_to_be_such(full: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(full.parents[2], runs)
    record = runs / "smoke" / "study.yaml"
    record.write_text(record.read_text() + "references:\n  no_disentanglement: {}\n")

    case = diagnosing.opened(FinishedRun.open(runs / "smoke" / "full" / "seed-42"), 12)

    (row,) = diagnosing.stored_rows(case)
    assert row.name == "reference no_disentanglement"
    measured = FinishedRun.open(runs / "smoke" / "no_disentanglement" / "seed-42").stored("evaluate")
    kept = load_tensors(measured / "samples.safetensors")
    first = torch.stack([kept[f"factor/{name}"][:12] for name in case.factors])
    assert (row.n, row.hits is None) == (12, False)
    assert row.mean.value == pytest.approx(float(first.mean())), "hits that were kept are compared caption by caption"


def test_what_cannot_be_diagnosed(study: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    folder = study / "full" / "seed-42"
    assert main(["diagnose", str(folder), "--images", "0"]) == 2
    assert main(["diagnose", str(study / "full" / "seed-43")]) == 3

    copy = tmp_path / "runs" / "smoke" / "full" / "seed-42"
    shutil.copytree(folder, copy)
    shutil.copytree(study.parent / "store", tmp_path / "runs" / "store")
    shutil.copytree(study.parent / "data", tmp_path / "runs" / "data")
    for judge in (tmp_path / "runs" / "store" / "instruments").glob("*/judge.safetensors"):
        judge.unlink()
    capsys.readouterr()
    assert main(["diagnose", str(copy)]) == 3
    assert "by which smoke/full/seed-42 was measured, is not there" in capsys.readouterr().err

    manifest = next((tmp_path / "runs" / "data").glob("*/manifest.json"))
    content = json.loads(manifest.read_text())
    content["factors"], content["anatomy_factors"] = {}, []
    manifest.write_text(json.dumps(content))
    assert main(["diagnose", str(copy)]) == 2
    assert "its set (phantom) tells no factors of its images" in capsys.readouterr().err
