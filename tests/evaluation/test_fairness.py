"""The card of fairness: what rows train, see and read, and in what they are unequal without saying so."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anastyle.cli import main
from anastyle.evaluation.fairness import Card, card, completed, unequal
from anastyle.evaluation.tables import Row
from anastyle.evaluation.terms import NEW_WORDS, NOTHING, OWN_WORDS, Dropped, Seen, Terms, drawn
from anastyle.evaluation.values import Value
from anastyle.experiment import read
from anastyle.interfaces import Condition
from anastyle.stages.choice import Candidate, Choice, Start
from anastyle.stages.settings import DiffuseSettings
from anastyle.stages.training import Diffuse

WORDS = "{encoder: null, aligner: {name: token_reader}, fuser: {name: text_tokens}}"
STUDY = """
name: terms
data: {name: phantom, train: 64, test: 32, image_size: 64}
autoencoder: {name: kl, path: compact}
encoder: {name: sdnet, width: 8, depth: 3, style_dim: 8, pool: area}
embedder: {name: tfidf_svd, path: compact}
aligner: {name: clinicalbert_mlp, hidden_dim: 32}
fuser: {name: hffm, tokens: 4}
backbone: {name: compact_dit, lora_targets: paper}
stages:
  disentangle: {steps: 4, batch_size: 8}
  align: {epochs: 2, batch_size: 16}
  diffuse: {steps: 10, batch_size: 8, accumulate: 2, drop_both: 0.1, drop_anatomy: 0.05, drop_style: 0.05}
  generate: {images: 16}
variants:
  full: {}
  naive_concat: {fuser: {name: concat, tokens: 8}}
"""
OLD = f"{STUDY}  no_disentanglement: {WORDS}\n"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an ablation whose row of words reads the words that its base was pretrained with."""
    file = tmp_path_factory.mktemp("terms") / "old.yaml"
    file.write_text(OLD.replace("pool: area", "pool: moments"))
    return file


@pytest.fixture(scope="module")
def rows(old: Path) -> dict[str, Terms]:
    return {row.name: row for row in card(read(old)).rows}


def test_a_row_over_the_words_of_its_base_is_warned_about(old: Path) -> None:
    warnings = card(read(old)).warnings

    assert any("no_disentanglement trains nothing between words and backbone" in text for text in warnings)
    told = next(text for text in warnings if "what their bases had read before" in text)
    assert "full, naive_concat: new words; no_disentanglement: its own words" in told
    assert "none of them names backbone or embedder" in told


def test_rows_that_differ_in_what_they_name_are_not_warned_about(old: Path) -> None:
    assert card(read(old, ["only=[full,naive_concat]"])).warnings == []


def test_a_reference_is_shown_and_not_warned_about(old: Path) -> None:
    beside = f"references.words={{{WORDS[1:-1]}, stages: {{diffuse: null}}}}"

    found = card(read(old, ["variants.no_disentanglement=null", beside]))

    assert found.warnings == []
    words = found.rows[-1]
    assert (words.name, words.reference, words.trains, words.seen) == ("words", True, {}, {})
    assert (words.base, words.dropped) == (OWN_WORDS, None)
    assert "words (reference)" in found.markdown()


def test_what_a_row_trains_is_counted_by_part(rows: dict[str, Terms]) -> None:
    full, words = rows["full"], rows["no_disentanglement"]

    assert list(full.trains) == ["encoder", "aligner", "fuser", "backbone"]
    assert full.trains["backbone"] == words.trains["backbone"] == 6 * 2 * 4 * 2 * 8 * 128
    assert full.interface == full.trains["aligner"] + full.trains["fuser"] - 2 * 4 * 192
    assert words.interface == 0, "a learned null carries no words"
    assert not words.whole


def test_what_a_row_sees_is_counted_by_stage(old: Path, rows: dict[str, Terms]) -> None:
    assert rows["full"].seen == {
        "disentangle": Seen(4, 32), "align": Seen(None, None, 2), "diffuse": Seen(10, 160),
    }  # fmt: skip
    assert rows["no_disentanglement"].seen == {"diffuse": Seen(10, 160)}
    assert card(read(old), examples=64).rows[0].seen["align"] == Seen(8, 128)


def test_tokens_are_counted_or_as_many_as_words(rows: dict[str, Terms]) -> None:
    assert (rows["full"].tokens, rows["naive_concat"].tokens) == ("8", "8")
    assert rows["no_disentanglement"].tokens == "one a word, at most 32"


def test_what_a_base_had_read_hangs_on_its_checkpoint_and_the_embedder(old: Path) -> None:
    def base(*words: str) -> str:
        return card(read(old, ["only=no_disentanglement", *words])).rows[0].base

    assert base() == OWN_WORDS
    assert base("embedder.path=null") == NEW_WORDS
    assert base("backbone.path=null") == NOTHING


@pytest.mark.parametrize("row", ["full", "naive_concat", "no_disentanglement"])
def test_shares_of_dropped_captions_are_those_of_training(row: str, old: Path, rows: dict[str, Terms]) -> None:
    from anastyle.accounting.params import parts
    from anastyle.config import section
    from anastyle.registry import FUSERS

    run = next(run for run in read(old).runs if run.variant == row)
    built = parts(run)
    cls, options = section(FUSERS, run.config["fuser"], "fuser")
    fuser = cls(options, text=built["embedder"].dims, dims=built["encoder"].dims if "encoder" in built else None,
                width=built["backbone"].width)  # fmt: skip
    for parameter in fuser.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    built["backbone"].reads = ("latent",)
    stage = Diffuse(built["aligner"], fuser, built["backbone"], DiffuseSettings())
    one, count = drawn(built), 4000
    reading = type(one)(*(expanded(part, count) for part in one))

    with torch.no_grad():
        shown: Condition = fuser(reading, stage.keep(count, torch.device("cpu")))
        whole = fuser(one)

    width = whole.tokens.shape[1]
    intact = (shown.tokens[:, :width] - whole.tokens).abs().flatten(1).amax(1) < 1e-4
    told = rows[row].dropped
    assert told is not None
    assert float((~intact).float().mean()) == pytest.approx(sum(told), abs=0.02)


def expanded(part: Any, count: int) -> Any:
    """Repeat a part of a reading, a tensor or factors, for a batch."""
    if part is None or isinstance(part, torch.Tensor):
        return None if part is None else part.expand(count, *part.shape[1:])
    return type(part)(*(expanded(inner, count) for inner in part))


TERMS = Terms("one", {"fuser": 9, "backbone": 9}, 9, False, {"diffuse": Seen(10, 80)}, "8", NEW_WORDS,
              Dropped(0.1, 0.05, 0.05), "3, the file's", frozenset())  # fmt: skip


@pytest.mark.parametrize(
    ("change", "owner", "told"),
    [
        ({"tokens": "4"}, "fuser", "condition tokens (one: 8; other: 4)"),
        ({"base": OWN_WORDS}, "embedder", "what their bases had read before"),
        ({"seen": {"diffuse": Seen(20, 160)}}, "stages.diffuse", "what diffuse goes through"),
        ({"seen": {**TERMS.seen, "align": Seen(5, 40)}}, "aligner", "what align goes through"),
        ({"dropped": Dropped(0.2, 0.05, 0.05)}, "stages.diffuse", "the share of captions dropped whole"),
        ({"dropped": Dropped(0.1, 0.0, 0.0)}, "fuser", "the shares of captions dropped in part"),
        ({"guidance": "1, the file's"}, "stages.generate", "how guidance is found"),
    ],
)
def test_what_differs_is_explained_by_the_section_that_says_it(change: dict, owner: str, told: str) -> None:
    other = replace(TERMS, name="other", **change)

    assert [told in text for text in unequal([TERMS, other])] == [True]
    assert list(unequal([TERMS, replace(other, named=frozenset([owner]))])) == []
    assert len(list(unequal([TERMS, replace(other, named=frozenset(["data"]))]))) == 1


def test_a_row_without_an_interface_is_warned_about_whatever_it_names() -> None:
    everything = frozenset(["aligner", "fuser", "embedder", "backbone", "stages.diffuse"])
    idle = replace(TERMS, name="idle", interface=0, named=everything)

    assert ["idle trains nothing between words and backbone" in text for text in unequal([TERMS, idle])] == [True]
    assert list(unequal([TERMS, replace(idle, whole=True)])) == [], "a base trained whole learns to read by itself"
    assert list(unequal([idle, replace(idle, name="other")])) == [], "where nobody has one, nobody is ahead by it"


def test_minutes_and_choices_come_after_the_run() -> None:
    start = Start(3.0, 0.9, 0.001, -0.01, 0.02)
    chose = {
        ("one", 1): Choice(1.5, 12, "factor_mean", False, 128, [Candidate(1.5, 12, 0.9, 0.8, 0.95)], start),
        ("one", 2): Choice(3.0, 12, "factor_mean", False, 128, [Candidate(3.0, 12, 0.9, 0.8, 0.95)]),
        ("beside", 1): Choice(3.0, 12, "factor_mean", False, 128, [Candidate(3.0, 12, 0.9, 0.8, 0.95)], start),
    }
    measured = [Row("one", seed, {"cost/minutes": Value(m, protocol="x")}) for seed, m in ((1, 2.0), (2, 4.0))]
    before = Card([TERMS, replace(TERMS, name="beside", reference=True)])

    after = completed(before, measured, chose, ["beside"])

    assert after.rows[0].minutes == 3
    assert after.rows[0].found == "1.5 in 12 steps (seed 1), 3 in 12 steps (seed 2)"
    assert [text.startswith("one, seed 1: no better than its own untuned start") for text in after.warnings] == [True]
    assert "### Warnings" in after.markdown()
    assert "3.0" in after.html()


def test_check_prints_the_card(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(old)]) == 0

    said = capsys.readouterr().out
    assert "terms of comparison" in said
    assert "its base had read: its own words" in said
    assert "warning: no_disentanglement trains nothing between words and backbone" in said
