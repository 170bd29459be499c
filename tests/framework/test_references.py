"""Rows that stand beside the variants: how they are read, planned and painted with nothing trained."""

import json
from pathlib import Path

import pytest

from anastyle.check import check, wiring_problems
from anastyle.checkpoint import load_tensors
from anastyle.cli import main
from anastyle.errors import ConfigError
from anastyle.experiment import read
from anastyle.plan import nodes
from anastyle.run import Conductor, run_experiment
from test_study import SMALL, SMOKE

UNTUNED = "{encoder: null, aligner: {name: token_reader}, fuser: {name: text_tokens}, stages: {diffuse: null}}"
ROWS = f"""
base: {SMOKE}
name: beside
variants: {{naive_concat: null, no_attributes: null}}
references:
  base_words: null
  untuned: {UNTUNED}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "rows.yaml").write_text(ROWS)
    return tmp_path / "rows.yaml"


def test_references_run_after_the_variants_of_each_seed(file: Path) -> None:
    experiment = read(file, ["seeds=[1,2]"])

    assert experiment.references == ["untuned"]
    assert experiment.ranked == ["full", "no_disentanglement"]
    assert [(run.variant, run.seed) for run in experiment.runs] == [
        ("full", 1), ("no_disentanglement", 1), ("untuned", 1), ("full", 2), ("no_disentanglement", 2), ("untuned", 2),
    ]  # fmt: skip
    assert experiment.layers["untuned"]["stages"] == {"diffuse": None}


def test_references_can_be_chosen_and_dropped(file: Path) -> None:
    assert list(read(file, ["only=untuned"]).variants) == ["untuned"]
    assert read(file, ["only=full"]).references == []
    assert read(file, ["references.untuned=null"]).references == []
    with pytest.raises(ConfigError, match="Did you mean 'untuned'"):
        read(file, ["only=untund"])


def test_references_stand_beside_variants_and_not_alone(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"base: {SMOKE}\nvariants: null\nreferences: {{plain: {{}}}}\n")

    alone = read(tmp_path / "x.yaml")

    assert (list(alone.variants), alone.references) == (["default"], [])


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("references.full={}", "references.full: is a variant too"),
        ("references=3", "references: write a mapping"),
        ("references.a={fusr: 1}", "references.a.fusr: no such section. Did you mean 'fuser'?"),
        ("references.a/b={}", "becomes a folder"),
    ],
)
def test_what_references_cannot_be_is_refused(file: Path, word: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(file, [word])

    assert reason in str(error.value)


def test_the_document_reads_back_with_its_references(file: Path, tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    for words in ([], ["only=untuned"]):
        experiment = read(file, words)
        text = OmegaConf.to_yaml(experiment.document()).replace("variants:", "data: {name: phantom}\nvariants:", 1)
        (tmp_path / "again.yaml").write_text(text)

        again = read(tmp_path / "again.yaml")
        assert (again.runs, again.references) == (experiment.runs, ["untuned"])


def test_a_word_for_a_stage_does_not_turn_it_on_where_a_row_has_it_off(file: Path) -> None:
    experiment = read(file, ["stages.diffuse.steps=3"])

    assert experiment.variants["full"]["stages"]["diffuse"]["steps"] == 3
    assert experiment.variants["untuned"]["stages"]["diffuse"] is None
    assert read(file, ["stages.autoencode={}"]).variants["untuned"]["stages"]["autoencode"] is not None


def test_check_counts_references_apart(file: Path) -> None:
    said = check(read(file, ["seeds=[1,2]"]))

    assert "2 variants + 1 reference x 2 seeds (1, 2) = 6 runs" in said
    assert "beside" in next(line for line in said.splitlines() if " untuned " in line)


def test_what_paints_untrained_needs_its_parts(file: Path) -> None:
    problems = wiring_problems(read(file, ["references.untuned.backbone=null"]))

    assert problems == [
        "variant untuned: backbone: stages.generate needs one. Name one, or set the stage to null.",
    ]  # fmt: skip


def test_what_is_painted_untrained_hangs_on_the_parts_that_paint(file: Path) -> None:
    def painted(*words: str) -> str:
        run = read(file, ["only=untuned", *words]).runs[0]
        return nodes(run, {"fingerprint": "x"}, Path("store"), captions="attributes")["generate"].fingerprint

    plan = nodes(read(file, ["only=untuned"]).runs[0], {"fingerprint": "x"}, Path("store"), captions="attributes")
    assert list(plan) == ["validate", "generate", "evaluate"]
    assert painted() == painted("only=untuned") != painted("references.untuned.fuser.dropped=zeros")
    assert painted() != painted("references.untuned.backbone.lora_rank=2")
    assert painted() != painted("seeds=7")
    assert painted() != painted("references.untuned.autoencoder={name: kl, path: null}")


def test_a_reference_is_painted_as_it_is_built_and_listed_last(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANASTYLE_TRACKING", "off")
    words = [*SMALL, f"output={tmp_path / 'runs'}", "only=[no_disentanglement,untuned]"]

    assert run_experiment(read(file, words)) == 0

    lines = (tmp_path / "runs" / "beside" / "table.md").read_text().splitlines()
    rows = [line.split("|")[1].strip() for line in lines[:4] if line.startswith("| ")]
    assert rows == ["variant", "no_disentanglement", "*untuned*"]
    conductor = Conductor(read(file, words))
    tuned, untuned = (conductor.plan(run) for run in conductor.experiment.runs)
    one, other = (load_tensors(plan["generate"].folder / "images.safetensors")["images"] for plan in (tuned, untuned))
    assert one.shape == other.shape
    assert not (one == other).all()
    minutes = json.loads((untuned["evaluate"].folder / "values.json").read_text())["cost/minutes"]["value"]
    assert minutes == 0
    capsys.readouterr()
    row = tmp_path / "runs" / "beside" / "untuned" / "seed-42"
    assert main(["sample", str(row), "--prompt", "a lesion"]) == 2
    assert "trains nothing that paints (stages.diffuse is off)" in capsys.readouterr().err
