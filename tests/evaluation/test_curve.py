"""Studies of several budgets as one curve: intervals over seeds, references beside, and no mixed protocols."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from anastyle.checkpoint import write_folder
from anastyle.cli import main
from anastyle.evaluation.curve_figure import spread

HOW = "Mean accuracy over 9 factors: share of 320 images"
Seeds = dict[int, float]


def study(output: Path, name: str, steps: int, rows: dict[str, Seeds], *, how: str = HOW, base: float = 0.9) -> Path:
    """Write a finished study as a run leaves it: each row's value by seed, and a reference that trains nothing."""
    for row, seeds in {**rows, "base_words": {seed: base for seed in next(iter(rows.values()))}}.items():
        trained = row != "base_words"
        for seed, number in seeds.items():
            folder = output / name / row / f"seed-{seed}"
            folder.mkdir(parents=True)
            diffuse = {"steps": steps, "batch_size": 32} if trained else None
            (folder / "config.yaml").write_text(yaml.safe_dump({"stages": {"diffuse": diffuse}}))
            stored = f"{name}-{row}-{seed}"
            stages = {"evaluate": stored} | ({"diffuse": stored} if trained else {})
            (folder / "status.json").write_text(json.dumps({"status": "finished", "stages": stages}))
            value = {"value": number, "low": number - 0.02, "high": number + 0.02, "n": 320, "protocol": how}
            with write_folder(output / "store" / "evaluate" / stored) as fresh:
                (fresh / "values.json").write_text(json.dumps({"factor_mean": value}))
    (output / name / "study.yaml").write_text(yaml.safe_dump({"references": {"base_words": {}}}))
    return output / name


@pytest.fixture
def studies(tmp_path: Path) -> list[str]:
    """Return three studies of two rows: of three seeds, of two, of one."""
    budgets = {
        350: ({42: 0.80, 43: 0.82, 44: 0.81}, {42: 0.84, 43: 0.84, 44: 0.84}),
        1400: ({42: 0.86, 43: 0.88}, {42: 0.87, 43: 0.89}),
        5600: ({42: 0.90}, {42: 0.91}),
    }
    return [str(study(tmp_path, f"ours-{steps}", steps, {"full": full, "words": words}))
            for steps, (full, words) in budgets.items()]  # fmt: skip


def test_a_curve_is_drawn_and_its_table_lies_beside_it(studies: list[str], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "pictures" / "curve.png"

    assert main(["curve", *reversed(studies), "--out", str(out)]) == 0

    with Image.open(out) as image:
        assert image.size == (1680, 960)
        colours = image.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert {(0, 114, 178), (213, 94, 0)} <= {colour for _, colour in colours}, "a line for each row"
    table = out.with_suffix(".md").read_text()
    assert "| full | 350 | 11,200 | 3 | 81.0 | 78.5 | 83.5 | seeds |" in table, "t(0.975, 2) = 4.303"
    assert "| full | 1,400 | 44,800 | 2 | 87.0 | 74.3 | 99.7 | seeds |" in table
    assert "| words | 5,600 | 179,200 | 1 | 91.0 | 89.0 | 93.0 | captions |" in table
    assert "| *base_words* (reference) | 0 | 0 | 3 | 90.0 |" in table
    assert table.index("| 350 |") < table.index("| 1,400 |") < table.index("| 5,600 |")
    assert table.strip() in capsys.readouterr().out


def test_without_a_place_it_lies_in_the_first_study(studies: list[str]) -> None:
    assert main(["curve", *studies]) == 0

    assert {"curve.png", "curve.md"} <= {file.name for file in Path(studies[0]).iterdir()}


def test_only_the_rows_that_are_named_are_shown(studies: list[str], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "curve.svg"

    assert main(["curve", *studies, "--rows", "words,base_words", "--out", str(out)]) == 0

    table = out.with_suffix(".md").read_text()
    assert "| words | 350 |" in table
    assert "*base_words*" in table
    assert "full" not in table
    assert main(["curve", *studies, "--rows", "word"]) == 2
    assert "--rows word: no such row. Did you mean 'words'?" in capsys.readouterr().err


def test_other_protocols_are_refused(studies: list[str], tmp_path: Path, capsys: Any) -> None:
    other = study(tmp_path, "other", 700, {"full": {42: 0.8}, "words": {42: 0.8}}, how="share of 64 images")

    assert main(["curve", *studies, str(other)]) == 2

    error = capsys.readouterr().err
    assert "factor_mean was measured by different protocols" in error
    assert "other/full, seed 42: share of 64 images" in error or "other/base_words, seed 42" in error
    assert not list(tmp_path.glob("**/curve.*"))


def test_strangers_are_refused(studies: list[str], tmp_path: Path, capsys: Any) -> None:
    other = study(tmp_path, "other", 700, {"sd15": {42: 0.8}})

    assert main(["curve", *studies, str(other)]) == 2

    error = capsys.readouterr().err
    assert "other shares no row with the other studies" in error
    assert "theirs: full, words" in error


def test_what_cannot_be_drawn(studies: list[str], tmp_path: Path, capsys: Any) -> None:
    again = study(tmp_path, "again", 350, {"full": {42: 0.8}, "words": {42: 0.8}})

    assert main(["curve", *studies, str(again)]) == 2
    assert "full, seed 42, 350 steps is there twice" in capsys.readouterr().err
    assert main(["curve", *studies, "--metric", "factor_means"]) == 2
    assert "no run has it. Did you mean 'factor_mean'?" in capsys.readouterr().err
    assert main(["curve", *studies, "--out", "curve.txt"]) == 2
    assert main(["curve", str(tmp_path / "nothing")]) == 3


def test_names_that_would_touch_are_moved_apart_around_their_middle() -> None:
    assert spread([0.1, 0.5, 0.51], 0.05) == pytest.approx([0.1, 0.48, 0.53])
    assert spread([0.1, 0.9], 0.05) == [0.1, 0.9]
    assert spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
