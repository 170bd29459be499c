"""Numbers of the paper, beside ours."""

import pytest

from anastyle.errors import ConfigError
from anastyle.evaluation.formats import markdown
from anastyle.evaluation.published import beside, published

ROWS = ["full", "no_attributes", "naive_concat", "no_disentanglement"]


def test_the_papers_tables_are_there_digit_for_digit():
    text = markdown(published("ham10000"))

    assert text.startswith("### Published: Table 1, HAM10000")
    assert "| VG-MedGen | — | — | 51.56 | 3.22 | 0.036 |" in text
    assert "not comparable with anything measured here" in text


def test_only_tables_with_all_of_our_rows_stand_beside_them():
    assert [table.title for table in beside(ROWS)] == ["Published: ablation on HAM10000"]
    assert beside([*ROWS, "mine"]) == []


def test_an_unknown_table_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'ham10000'"):
        published("ham1000")
