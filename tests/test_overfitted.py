"""A model that learned a few training images by heart fails the gate; the same model on many images passes it."""

from pathlib import Path

import pytest

from anastyle.cli import main
from anastyle.evaluation.memorisation.record import Memorisation, read
from anastyle.painting.finished import FinishedRun

ROOT = Path(__file__).parents[1]
WORDS = [
    str(ROOT / "experiments" / "smoke.yaml"),
    "only=no_disentanglement",
    "data.test=128",
    "backbone.lora_rank=0",
    "stages.diffuse.steps=300",
    "stages.diffuse.batch_size=12",
    "stages.diffuse.lr=2e-3",
    "stages.generate.images=64",
    "stages.generate.steps=10",
    "stages.generate.guidance=1",
    "stages.generate.swaps=0",
    "stages.evaluate.judge_steps=1",
    "stages.evaluate.domain_steps=60",
]


def trained(output: Path, images: int) -> tuple[Path, Memorisation]:
    """Train on so many images; return the run and what is known of its copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANASTYLE_TRACKING", "off")
        assert main(["run", *WORDS, f"data.train={images}", f"output={output}"]) == 0
    run = output / "smoke" / "no_disentanglement" / "seed-42"
    found = read(FinishedRun.open(run).stored("evaluate"))
    assert found is not None
    return run, found


def test_a_model_that_knows_its_images_by_heart_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, found = trained(tmp_path, 12)

    assert found.verdict == "failed"
    assert found.values["copy_rate"].value > 10 * (found.values["copy_rate"].floor or 0)
    assert main(["export", str(run), str(tmp_path / "out")]) == 6
    assert "--accept-risk" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_same_model_on_many_images_passes(tmp_path: Path) -> None:
    assert trained(tmp_path, 1000)[1].verdict == "passed"
