"""A whole study, small: every stage of the four rows, reuse, resumption, and a stranger's plugin."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from anastyle import FUSERS
from anastyle.checkpoint import load_tensors
from anastyle.cli import main
from anastyle.evaluation import measure
from anastyle.evaluation.compare import paired_runs
from anastyle.experiment import read
from anastyle.parts import Parts
from anastyle.run import Conductor, run_experiment

ROOT = Path(__file__).parents[1]
SMOKE = str(ROOT / "experiments" / "smoke.yaml")
SMALL = [
    "data.train=48",
    "data.test=32",
    "stages.disentangle.steps=2",
    "stages.align.steps=4",
    "stages.diffuse.steps=2",
    "stages.generate.images=16",
    "stages.generate.steps=2",
    "stages.generate.grid=4",
    "stages.evaluate.judge_steps=2",
    "stages.evaluate.domain_steps=2",
    "stages.evaluate.bootstrap=5",
]
ROWS = ["full", "no_attributes", "naive_concat", "no_disentanglement"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the small study once, without a tracking server's database; return its output folder."""
    output = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANASTYLE_TRACKING", "off")
        assert run_experiment(read(SMOKE, [*SMALL, f"output={output}"])) == 0
    return output


def small(output: Path, *words: str) -> Conductor:
    return Conductor(read(SMOKE, [*SMALL, f"output={output}", *words]))


def test_a_study_ends_in_tables_and_a_report(study: Path) -> None:
    folder = study / "smoke"

    table = (folder / "table.md").read_text()
    report = (folder / "report.html").read_text()

    assert all(f"| {row} |" in table for row in ROWS)
    tables = {"table.csv", "table.tex", "differences.md", "differences.csv", "seeds.csv"}
    assert tables | {"finished.json", "study.yaml", "environment.json"} <= {file.name for file in folder.iterdir()}
    assert "### Paired differences" in table
    assert "full,naive_concat,factor_mean," in (folder / "differences.csv").read_text()
    assert "full,42,fd_random_conv," in (folder / "seeds.csv").read_text()
    assert "Not for clinical use" in report
    assert "full, seed 42: undefined" in report, "so few held-out images calibrate nothing"
    assert "http" not in report.split("<main>")[1], "a report asks the network for nothing"


def test_two_rows_of_a_study_are_compared_from_python(study: Path) -> None:
    found = paired_runs(study / "smoke").between("full", "naive_concat", "factor_mean")

    assert found is not None
    assert (found.n, found.seeds) == (16, 1)
    assert found.low <= found.value <= found.high


def test_results_by_caption_are_stored_beside_the_values(study: Path) -> None:
    conductor = small(study)
    folder = conductor.plan(conductor.experiment.runs[0])["evaluate"].folder

    stored = load_tensors(folder / "samples.safetensors")

    assert stored["factor/shape"].shape == (16,)
    assert stored["features/domain"].shape[0] == stored["features/random_conv"].shape[0] == 16
    assert stored["swap/style/anatomy"].shape == (5, 16)
    assert all(tensor.dtype == torch.float32 for tensor in stored.values())
    assert '"samples"' not in (folder / "values.json").read_text()


def test_runs_are_compared_across_studies(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code = main(["compare", str(study / "smoke"), "--published", "ablation", "--out", str(tmp_path / "table")])

    printed = capsys.readouterr().out
    assert code == 0
    assert all(f"| {row} |" in printed for row in ROWS)
    assert "anatomy text moves style" in printed
    assert "### Published: ablation on HAM10000" in printed
    assert {file.name for file in (tmp_path / "table").iterdir()} == {"table.md", "table.csv", "table.tex"}


def test_nothing_finished_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", str(tmp_path)]) == 3
    assert "no finished run below it" in capsys.readouterr().err


def test_every_run_leaves_its_config_status_and_metrics(study: Path) -> None:
    for row in ROWS:
        folder = study / "smoke" / row / "seed-42"
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

        assert json.loads((folder / "status.json").read_text())["status"] == "finished"
        assert (folder / "config.yaml").is_file()
        assert any("train/diffuse/loss/denoising" in line for line in metrics)
        assert any("eval/fd_domain" in line for line in metrics)


def test_the_visual_encoder_is_trained_once_for_all_variants(study: Path) -> None:
    counts = {stage: len(list((study / "store" / stage).iterdir())) for stage in ("disentangle", "align", "diffuse")}

    assert counts == {"disentangle": 1, "align": 2, "diffuse": 4}


def test_the_variants_start_from_the_same_noise_and_differ(study: Path) -> None:
    conductor = small(study)
    plans = [conductor.plan(run) for run in conductor.experiment.runs]

    images = [load_tensors(plan["generate"].folder / "images.safetensors")["images"] for plan in plans]

    assert all(image.shape == (16, 3, 32, 32) for image in images)
    assert not (images[0] == images[3]).all()


def test_a_finished_study_does_nothing_but_say_so(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANASTYLE_TRACKING", "off")
    before = {file: file.stat().st_mtime_ns for file in study.rglob("*") if file.is_file()}
    began = time.monotonic()

    code = main(["run", SMOKE, *SMALL, f"output={study}"])

    assert code == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in study.rglob("*") if file.is_file()} == before
    assert time.monotonic() - began < 10


def test_another_fuser_width_retrains_only_what_depends_on_it(study: Path) -> None:
    outline = small(study, "fuser.hidden_dim=128", "only=full").outline()

    words = dict(part.split(" ", 1) for part in outline.split(": ", 1)[1].split(", "))
    assert {stage: word.split()[-1] for stage, word in words.items()} == {
        "disentangle": "done", "align": "done", "diffuse": "do", "validate": "do", "generate": "do", "evaluate": "do",
    }  # fmt: skip


def test_another_version_of_a_part_retrains_only_what_depends_on_it(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FUSERS.get("hffm"), "version", 2)

    outline = small(study, "only=full").outline()

    assert [part.split()[-1] for part in outline.split(", ")] == ["done", "done", "do", "do", "do", "do"]


def test_settings_that_change_no_weight_change_no_fingerprint(study: Path) -> None:
    outline = small(study, "stages.diffuse.checkpoint_every=7", "stages.diffuse.log_every=1").outline()

    assert "to do" not in outline


def test_other_data_is_another_training(study: Path) -> None:
    outline = small(study, "data.seed=7", "only=full").outline()

    assert "done" not in outline


def test_generated_images_do_not_depend_on_the_batch(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANASTYLE_TRACKING", "off")
    words = [*SMALL, f"output={study}", "only=full", "name=batched", "stages.generate.batch_size=5"]

    assert run_experiment(read(SMOKE, words)) == 0

    plans = [small(study, *extra).plan(small(study).experiment.runs[0]) for extra in ([],)]
    batched = Conductor(read(SMOKE, words))
    first = load_tensors(plans[0]["generate"].folder / "images.safetensors")["images"].int()
    second = load_tensors(batched.plan(batched.experiment.runs[0])["generate"].folder / "images.safetensors")["images"]
    assert (first - second.int()).abs().max() <= 1


def test_a_run_stopped_before_it_was_measured_is_measured_behind_its_own_autoencoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, decoded = [], measure.decoded

    def watched(parts: Parts, *args: Any) -> Any:
        seen.append(parts.autoencoder.fingerprint())
        return decoded(parts, *args)

    monkeypatch.setenv("ANASTYLE_TRACKING", "off")
    monkeypatch.setattr(measure, "decoded", watched)
    tuning = "stages.autoencode={steps: 2, batch_size: 8, weights: {reconstruction: 1, gradient: 1, kl: 1e-4}}"
    words = [*SMALL, f"output={tmp_path}", "only=full", "autoencoder.tune=true", tuning]
    assert run_experiment(read(SMOKE, words)) == 0

    shutil.rmtree(tmp_path / "store" / "evaluate")
    assert run_experiment(read(SMOKE, words)) == 0

    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_a_variant_that_fails_leaves_a_partial_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANASTYLE_TRACKING", "off")
    words = [*SMALL, f"output={tmp_path}", "only=[full,no_disentanglement]", "stages.align.weights.magnitude=null"]

    code = run_experiment(read(SMOKE, words))

    assert code == 7
    table = (tmp_path / "smoke" / "table.md").read_text()
    assert "| no_disentanglement |" in table
    assert "| full |" not in table.split("### ")[0]  # its terms are there, its results are not


def readme_fuser() -> str:
    """Return the fuser that the README shows."""
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    return next(block.split("```", 1)[0] for block in blocks if "@FUSERS.register" in block)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """Return a folder with an installed package that announces one fuser by its entry point."""
    site = tmp_path / "site"
    (site / "mylab_plugins" / "fusers").mkdir(parents=True)
    (site / "mylab_plugins" / "__init__.py").touch()
    (site / "mylab_plugins" / "fusers" / "__init__.py").touch()
    (site / "mylab_plugins" / "fusers" / "gated.py").write_text(readme_fuser())
    info = site / "mylab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[anastyle.plugins]\nmylab = mylab_plugins\n")
    return site


def test_a_strangers_fuser_runs_in_the_study_and_passes_the_contract(stranger: Path, tmp_path: Path) -> None:
    assert len(readme_fuser().splitlines()) < 40
    paths = [str(stranger), str(ROOT / "framework"), str(ROOT / "plugins")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "ANASTYLE_TRACKING": "off"}
    words = [*SMALL, f"output={tmp_path / 'runs'}", "only=full", "fuser.name=gated"]

    listed = subprocess.run(
        [sys.executable, "-m", "anastyle", "list", "fuser"], env=env, capture_output=True, text=True, check=True
    )
    ran = subprocess.run(
        [sys.executable, "-m", "anastyle", "run", SMOKE, *words], env=env, capture_output=True, text=True
    )
    contract = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/contracts/test_fusers.py", "-k", "gated"],
        env=env, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip

    assert "gated" in listed.stdout
    assert ran.returncode == 0, ran.stderr
    assert "| full |" in ran.stdout
    assert contract.returncode == 0, contract.stdout
    assert " passed" in contract.stdout
