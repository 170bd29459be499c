"""What `anastyle params` prints: the paper's parts, exactly, their FLOPs, and what a card must hold."""

from pathlib import Path

import pytest

from anastyle.accounting.costs import GIB, Estimate, card, verdict
from anastyle.accounting.memory import Memory
from anastyle.accounting.params import inference, parts, report, table
from anastyle.cli import main
from anastyle.errors import ConfigError
from anastyle.experiment import read

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"


def rows(page: str) -> dict[str, list[str]]:
    """Return the rows of a page: what a line is called, and its numbers."""
    return {line[:44].strip(): line[44:].split() for line in page.splitlines()}


@pytest.fixture(scope="module")
def paper() -> list[str]:
    """Return the parameters of the paper's parts, a page per variant."""
    built = [(run, parts(run)) for run in read(EXPERIMENTS / "paper_parts.yaml").runs]
    return ["\n".join([*table(run, made), *inference(made)]) for run, made in built]


@pytest.fixture(scope="module")
def released() -> str:
    """Return all that is printed of the paper's parts."""
    return report(read(EXPERIMENTS / "paper_parts.yaml", ["only=released"]))


def number(page: str, start: str) -> str:
    """Return the first number of the line that starts so."""
    line = next(line for line in page.splitlines() if line.strip().startswith(start))
    return line.strip().removeprefix(start).split()[0]


def test_the_papers_parts_are_counted_exactly(paper: list[str]) -> None:
    released, cited, attention_only = map(rows, paper)

    assert released["encoder  sdnet"][0] == "36,105,917"
    assert released["segmentor"][0] == "41,986"
    assert released["aligner  clinicalbert_mlp"][0] == "1,198,352"
    assert released["without the learned nulls"][0] == "2,118,176"
    assert released["autoencoder  kl"][0] == "83,653,863"
    assert released["backbone  pixart_lora"] == ["617,738,784", "6,882,688", "610,856,096"]
    assert released["embedder  bert"][0] == "134,734,080"
    assert cited["embedder  bert"][0] == "108,310,272"
    assert attention_only["backbone  pixart_lora"][1] == "4,128,768"
    for page in (released, attention_only):
        assert page["adapters of rank 8, targets: released"][0] == "6,882,688"
        assert page["adapters of rank 8, targets: paper"][0] == "4,128,768"


def test_all_that_paints_is_the_papers_total(paper: list[str]) -> None:
    assert number(paper[0], "inference, LoRA merged") == "832,560,567"
    assert number(paper[1], "inference, LoRA merged") == "806,136,759"
    assert number(paper[0], "learned nulls, ours, not in it") == "8,192"


def test_the_shapes_are_the_papers(released: str) -> None:
    lines = [line.split("  ")[1:] for line in released.splitlines()]
    shown = {line[0]: line[-1].strip() for line in lines if len(line) > 1}

    assert shown["anatomy maps"] == "(8, 224, 224)"
    assert shown["condition tokens"] == "(2, 4096)"
    assert shown["latent"] == "(4, 64, 64)"


def test_flops_are_those_counted_elsewhere(released: str) -> None:
    assert number(released, "backbone, forward, 2 condition tokens") == "1,201.43"
    assert number(released, "autoencoder, encode") == "1,116.66"
    assert number(released, "autoencoder, decode") == "2,514.52"
    assert number(released, "diffuse, one image of a step, latents cached") == "2,573.40"


def test_the_embedded_parts_are_counted_and_fit_any_card() -> None:
    page = report(read(EXPERIMENTS / "phantom.yaml"), "4")

    assert "backbone  compact_dit" in page
    assert "diffuse, batch 32" in page
    assert "gradient checkpointing: not needed" in page


@pytest.mark.parametrize(("text", "gib"), [("A30", 24), ("h100", 80), ("11.5", 11.5)])
def test_a_card_is_a_name_or_a_size(text: str, gib: float) -> None:
    assert card(text).gib == gib


def test_an_unknown_card_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'A30'"):
        card("A300")

    assert main(["params", str(EXPERIMENTS / "phantom.yaml"), "--card", "3x"]) == 2
    assert "a number of GiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("room", "said"), [(20, "the batch could be about 6 without it"), (9, "needed at batch 2"), (2, "not enough")]
)
def test_checkpointing_is_needed_where_activations_do_not_fit(room: int, said: str) -> None:
    small, large = Memory(GIB, 3 * GIB), Memory(8 * GIB, 10 * GIB)
    found = Estimate(GIB, GIB, small, small, small, large, small, per_image=2 * GIB, sampling=GIB)

    assert said in verdict(found, 2, room * GIB)
