"""The validate stage in a study: what it chooses, who uses it, and what it says of a row that learned nothing."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from optuna.trial import create_trial

import three_parts
from anastyle.checkpoint import load_tensors
from anastyle.errors import ConfigError
from anastyle.evaluation.study import summary
from anastyle.evaluation.validation import Held
from anastyle.experiment import Experiment, read
from anastyle.painting.finished import FinishedRun
from anastyle.parts import Parts
from anastyle.plan import Node
from anastyle.run import Conductor, run_experiment
from anastyle.settings import EvaluateSettings
from anastyle.stages.choice import Choice
from anastyle.sweeps.report import best_yaml
from anastyle.sweeps.settings import read_sweep
from anastyle.sweeps.sweep import Worker
from test_study import SMALL, SMOKE

ROWS = f"""
base: {SMOKE}
name: chosen
references: null
data: {{name: null, root: SET, image_size: 32, train: null, test: null}}
encoder: null
aligner: {{name: token_reader}}
fuser: {{name: text_tokens}}
variants:
  full: {{}}
  no_attributes: null
  naive_concat: null
  no_disentanglement: {{stages: {{diffuse: {{lr: 1e-30}}, validate: {{guidance: [3], steps: null}}}}}}
stages:
  validate: {{images: 16, guidance: [1, 3], steps: [1, 2]}}
  evaluate: {{bootstrap: 20, judge_steps: 2, domain_steps: 2, memorisation: false}}
  generate: {{swaps: 0}}
"""
OWN = [word for word in SMALL if not word.startswith(("data.", "stages.evaluate", "stages.diffuse"))]


def study(folder: Path, *words: str, validation: int = 24) -> Experiment:
    """Return the experiment on a set of three parts, prepared on first use."""
    if not (folder / "set").exists():
        three_parts.write(folder / "set", validation=validation)
        (folder / "rows.yaml").write_text(ROWS.replace("SET", str(folder / "set")))
    return read(folder / "rows.yaml", [*OWN, f"output={folder / 'runs'}", *words])


def plans(experiment: Experiment) -> dict[str, dict[str, Node]]:
    conductor = Conductor(experiment)
    return {run.variant: conductor.plan(run) for run in conductor.experiment.runs}


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANASTYLE_TRACKING", "off")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two rows of the smoke study, one of which trains nothing at all; return where."""
    output = tmp_path_factory.mktemp("validate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANASTYLE_TRACKING", "off")
        assert run_experiment(study(output)) == 0
    return output


def test_a_row_chooses_among_its_candidates_on_validation_captions(output: Path) -> None:
    choice = Choice.read(plans(study(output))["full"]["validate"].folder)

    assert (choice.criterion, choice.n) == ("factor_mean", 16)
    assert sorted((one.guidance, one.steps) for one in choice.candidates) == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert (choice.guidance, choice.steps) in {(one.guidance, one.steps) for one in choice.candidates}
    assert all(one.low is not None and one.high is not None for one in choice.candidates)
    assert all((one.low or 0) < one.value < (one.high or 0) for one in choice.candidates)
    assert choice.start is not None
    assert choice.start.guidance == 3


def test_what_was_chosen_is_what_paints(output: Path) -> None:
    for row, plan in plans(study(output)).items():
        choice, painted = Choice.read(plan["validate"].folder), plan["generate"].folder
        run = FinishedRun.open(output / "runs" / "chosen" / row / "seed-42")

        stored = json.loads((painted / "settings.json").read_text())
        assert (stored["guidance"], stored["steps"]) == (choice.guidance, choice.steps)
        passes = "one pass" if choice.guidance == 1 else "two passes"
        assert f"{choice.steps} steps of {passes}" in json.loads((painted / "cost.json").read_text())["how"]
        chain = run.chain()
        assert (chain.guidance, chain.steps) == (choice.guidance, choice.steps)
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        assert any(line.get("validate/guidance") == choice.guidance for line in lines)
        assert any(line.get("generate/guidance") == choice.guidance for line in lines)


def test_what_is_painted_hangs_on_what_is_chosen_by_and_nothing_before_it(output: Path) -> None:
    words = [[], ["stages.validate.guidance=[1,2]"], ["stages.evaluate.judge_steps=3"], ["stages.validate=null"]]
    others = [plans(study(output, "only=full", *some))["full"] for some in words]

    assert len({plan["diffuse"].fingerprint for plan in others}) == 1
    assert len({plan["generate"].fingerprint for plan in others}) == 4
    assert list(others[0]) == ["diffuse", "validate", "generate", "evaluate"]


def test_a_row_that_trained_nothing_is_its_own_start_and_warned_about(output: Path) -> None:
    start = Choice.read(plans(study(output))["no_disentanglement"]["validate"].folder).start
    folder = output / "runs" / "chosen"
    table, report = (folder / "table.md").read_text(), (folder / "report.html").read_text()

    assert start is not None
    assert start.difference == start.low == start.high == 0
    told = "no_disentanglement, seed 42: no better than its own untuned start (factor_mean differs by 0.0 (0.0 to 0.0)"
    assert told in table
    assert told in report
    assert told in summary(study(output))
    assert "guidance 3, 2 steps, by factor_mean of 16 validation captions" in report


def test_a_study_holds_the_terms_of_its_rows(output: Path) -> None:
    folder = output / "runs" / "chosen"

    for name in ("table.md", "fairness.md"):
        text = (folder / name).read_text()
        assert "### Terms of comparison" in text
        assert "; the best of 1, 3 on validation captions" in text
    assert "Terms of comparison" in (folder / "report.html").read_text()
    assert "rows differ in how guidance is found" not in text, "one of them names stages.validate in the file"


def test_a_set_without_validation_keeps_the_files_own(tmp_path: Path) -> None:
    experiment = study(tmp_path, "only=no_disentanglement", validation=0)

    assert run_experiment(experiment) == 0

    choice = Choice.read(plans(experiment)["no_disentanglement"]["validate"].folder)
    assert (choice.guidance, choice.steps, choice.candidates) == (3, 2, [])
    assert "no validation split" in choice.words
    assert not choice.warning


def test_validation_captions_can_be_painted_instead_of_the_tests(output: Path) -> None:
    off = ["name=held", "only=no_disentanglement", "stages.generate.split=validation", "stages.evaluate=null"]
    experiment = study(output, *off, "stages.validate=null")

    assert run_experiment(experiment) == 0

    held, test = (
        load_tensors(plan["no_disentanglement"]["generate"].folder / "images.safetensors")["images"]
        for plan in (plans(experiment), plans(study(output)))
    )
    assert held.shape == test.shape == (16, 3, 32, 32)
    assert not (held == test).all()


def test_a_sweep_looks_at_validation_and_its_best_at_the_test(output: Path) -> None:
    space = "sweep={trials: 1, objective: {fd_domain: minimize}, space: {backbone.lora_rank: {choice: [2]}}}"
    experiment = study(output, "only=full", "stages.validate=null", space)
    sweep, problems = read_sweep(experiment)
    assert problems == []
    assert sweep is not None

    trial = Worker(experiment, sweep).runs(0, {"backbone.lora_rank": 2})

    assert [run.config["stages"]["generate"]["split"] for run in trial] == ["validation"]
    ended = create_trial(params={}, distributions={}, value=1.0)
    best = yaml.safe_load(best_yaml(experiment, [ended]))
    assert best["stages"]["generate"]["split"] == "test"


def test_a_sweep_and_the_validate_stage_do_not_choose_the_same(output: Path) -> None:
    space = "sweep={trials: 1, objective: {fd_domain: minimize}, space: {stages.generate.guidance: {choice: [1, 2]}}}"

    _, problems = read_sweep(study(output, "only=full", space))

    assert problems == [
        "sweep.space.stages.generate.guidance: stages.validate chooses it in every trial. Drop one: "
        "stages.validate=null."
    ]


def test_kid_is_chosen_by_where_nothing_else_is_known(output: Path) -> None:
    run = study(output, "only=full").runs[0]
    conductor = Conductor(study(output, "only=full"))
    parts = Parts(run.config, conductor.data(run), seed=42, cache=output / "cache")
    held = Held(EvaluateSettings(judge_steps=2, domain_steps=2, bootstrap=10), parts,
                parts.held_out("validation"), output / "runs", torch.device("cpu"))  # fmt: skip

    criterion = held.criterion("kid")
    own, inverted = (criterion.measured(images) for images in reals(parts))

    assert own.value < inverted.value
    assert len(own.draws) == 10
    assert held.criterion("auto").key == "factor_mean"
    with pytest.raises(ConfigError, match="faithful_mean: needs masks"):
        Held(EvaluateSettings(captioner=""), parts, parts.held_out("validation"), output, held.device).criterion(
            "faithful_mean"
        )


def reals(parts: Parts) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the validation images, and their negatives."""
    images = parts.held_out("validation").pixels(range(24))
    return images, 255 - images
