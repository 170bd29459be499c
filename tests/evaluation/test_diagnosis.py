"""A diagnosis as tables: a loss that was planted is named, one that chance explains is not."""

import csv
from pathlib import Path

import numpy as np
import pytest

from anastyle.evaluation.control.inventory import Held
from anastyle.evaluation.diagnosis import Diagnosis, Number, Shown, lost, write

FACTORS = ["shape", "palette", "light"]


def shown(name: str, hits: np.ndarray) -> Shown:
    singles = {factor: Number(float(some.mean())) for factor, some in zip(FACTORS, hits, strict=True)}
    return Shown(name, Number(float(hits.mean()), 0.1, 0.9), singles, hits.shape[1], hits)


@pytest.fixture
def rows() -> list[Shown]:
    """Return real images, the same after an autoencoder that loses a third of palette, and a row without its hits."""
    real = np.ones((3, 60))
    behind = real.copy()
    behind[1, :20] = 0
    behind[0, 0] = 0  # one image of sixty: chance
    bare = Shown(
        "row words", Number(0.8, 0.7, 0.9), {**dict.fromkeys(FACTORS, Number(0.8)), "light": Number(np.nan)}, 60
    )
    return [shown("real", real), shown("behind", behind), bare, shown("this run", behind)]


def test_a_planted_loss_is_named_and_chance_is_not(rows: list[Shown]) -> None:
    real, behind, bare, own = rows

    told = lost(behind, real, FACTORS)

    assert told.startswith("-11.7 (-")
    assert told.endswith("): palette -33.3")
    assert lost(own, behind, FACTORS) == "+0.0 (+0.0 to +0.0)"
    assert lost(bare, behind, FACTORS) == "—"
    assert lost(real, None, FACTORS) == ""


def test_tables_are_written_to_read_and_in_full(rows: list[Shown], tmp_path: Path) -> None:
    held = Held(0.5, 0.4, 0.6, 0.5, 0.01)
    codes = {f"text {kind}": dict.fromkeys(FACTORS, held._replace(accuracy=0.97)) for kind in ("anatomy", "style")}
    codes["text style"]["palette"] = held
    found = Diagnosis(
        "study/full/seed-42", FACTORS, {"anatomy": ["shape"], "style": FACTORS[1:]}, rows, codes, ["said."]
    )

    text = write(found, tmp_path)

    assert (tmp_path / "diagnosis.md").read_text().rstrip() == text
    assert "| behind | 60 | 88.3 | 10.0 to 90.0 | 98.3 | 66.7 | 100.0 | -11.7 (" in text
    assert "| row words | 60 | 80.0 | 70.0 to 90.0 | 80.0 | 80.0 | — | — |" in text
    assert "| text style | 97.0 | 50.0 | 97.0 |" in text
    assert "| *chance* | *50.0* | *50.0* | *50.0* |" in text
    assert "Below 95 % in the text-read code of its own kind: palette 50.0 % (style)." in text
    assert text.endswith("- said.")
    lines = list(csv.DictReader((tmp_path / "diagnosis.csv").open()))
    assert len(lines) == 4 * (1 + 3) + 2 * 2 * 3
    at = {(line["table"], line["row"], line["factor"]): line for line in lines}
    assert float(at["accuracy", "behind", "palette"]["value"]) == pytest.approx(2 / 3)
    assert at["probe", "text style", "palette"]["chance"] == "0.5"
    assert at["share of variance", "text style", "palette"]["value"] == "0.01"
