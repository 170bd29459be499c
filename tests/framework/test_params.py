"""What `anastyle params` prints: the counts of the paper's parts, exactly, without weights."""

from pathlib import Path

from anastyle.experiment import read
from anastyle.params import report

ROOT = Path(__file__).parents[2]


def test_the_papers_parts_are_counted_exactly() -> None:
    pages = report(read(ROOT / "experiments" / "paper_parts.yaml")).split("\n\n")

    rows = [{line[:44].strip(): line[44:].split() for line in page.splitlines()[1:]} for page in pages]
    released, cited, attention_only = rows

    assert released["encoder  sdnet"][0] == "36,105,917"
    assert released["segmentor"][0] == "41,986"
    assert released["aligner  clinicalbert_mlp"][0] == "1,198,352"
    assert released["without the learned nulls"][0] == "2,118,176"
    assert released["autoencoder  kl"][0] == "83,653,863"
    assert released["backbone  pixart_lora"] == ["617,738,784", "6,882,688", "610,856,096"]
    assert released["embedder  bert"][0] == "134,734,080"
    assert cited["embedder  bert"][0] == "108,310,272"
    assert attention_only["backbone  pixart_lora"][1] == "4,128,768"


def test_the_embedded_parts_are_counted_too() -> None:
    page = report(read(ROOT / "experiments" / "phantom.yaml"))

    assert "backbone  compact_dit" in page
