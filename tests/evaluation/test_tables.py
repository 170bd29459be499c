"""Tables: marks, means, missing cells, and numbers that must not be compared."""

import csv

import pytest

from anastyle.evaluation.formats import escape, write_tables
from anastyle.evaluation.overview import all_tables
from anastyle.evaluation.tables import Row, factor_table, main_table
from anastyle.evaluation.values import Value


def distance(value: float, protocol: str = "Fréchet; n=512") -> Value:
    return Value(value, value - 1, value + 1, 0.5, 512, protocol)


def share(value: float) -> Value:
    return Value(value, value - 0.1, value + 0.1, 0.25, 512, "Accuracy: judge", 0.97, 0.9)


@pytest.fixture
def rows() -> list[Row]:
    return [
        Row("full", 42, {"fd_domain": distance(3.0), "factor/shape": share(0.8), "factor_mean": share(0.8)}),
        Row("full", 43, {"fd_domain": distance(5.0), "factor/shape": share(0.9), "factor_mean": share(0.9)}),
        Row("naive_concat", 42, {"fd_domain": distance(6.0), "factor/shape": share(0.95), "factor_mean": share(0.95)}),
        Row("class_label", 42, {"fd_domain": distance(9.0)}),
    ]


def test_the_best_and_the_second_are_marked_in_the_right_direction(rows):
    table = main_table(rows)

    assert [column.key for column in table.columns] == ["fd_domain", "factor_mean"]
    assert [[cell.rank for cell in line.cells] for line in table.lines] == [[1, 0], [2, 1], [0, 0]]
    assert [column.arrow for column in table.columns] == ["↓", "↑"]


def test_numbers_that_are_shown_the_same_share_their_mark():
    rows = [Row(name, 0, {"fd_domain": distance(value)}) for name, value in (("a", 1.001), ("b", 1.002), ("c", 2.0))]

    assert [line.cells[0].rank for line in main_table(rows).lines] == [1, 1, 2]


def test_seeds_become_a_mean_and_a_standard_deviation(rows):
    table = main_table(rows)

    assert table.text(0, table.lines[0].cells[0]) == "4.00 ± 1.41"
    assert table.text(0, table.lines[1].cells[0]) == "6.00"
    assert (table.lines[1].cells[0].low, table.lines[1].cells[0].high) == (5.0, 7.0)


def test_markdown_shows_floor_ceiling_protocol_and_missing_cells(rows, tmp_path):
    text = write_tables(all_tables(rows), tmp_path)[0].read_text(encoding="utf-8")

    assert "| full | 2 | 512 | **4.00 ± 1.41** | 85.0 ± 7.1 |" in text
    assert "| naive_concat | 1 | 512 | <u>6.00</u> | **95.0** |" in text
    assert "| class_label | 1 | 512 | 9.00 | — |" in text
    assert "| *floor: real vs real, or chance* |  |  | *0.50* | *25.0* |" in text
    assert "| *ceiling: real, after the autoencoder* |  |  | — | *90.0* |" in text
    assert "FD domain: Fréchet; n=512." in text


def test_csv_has_every_number_in_full(rows, tmp_path):
    with write_tables(all_tables(rows), tmp_path)[1].open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))

    full = next(line for line in lines if (line["variant"], line["metric"]) == ("full", "fd_domain"))
    missing = next(line for line in lines if (line["variant"], line["metric"]) == ("class_label", "factor/shape"))
    assert (float(full["mean"]), full["seeds"], full["n"], full["protocol"]) == (4.0, "2", "512", "Fréchet; n=512")
    assert missing["mean"] == ""


def test_latex_is_booktabs_with_names_escaped(rows, tmp_path):
    text = write_tables(all_tables(rows), tmp_path)[2].read_text(encoding="utf-8")

    assert r"\toprule" in text
    assert r"\textbf{4.00 $\pm$ 1.41}" in text
    assert r"\underline{6.00}" in text
    assert r"naive\_concat" in text
    assert r"class\_label & 9.00 & ---" in text
    assert escape("50% & {x}_1") == r"50\% \& \{x\}\_1"


def test_a_number_by_another_protocol_carries_a_dagger(tmp_path):
    rows = [Row("a", 0, {"fd_domain": distance(1)}), Row("b", 0, {"fd_domain": distance(2, "Fréchet; n=100")})]

    text = write_tables(all_tables(rows), tmp_path)[0].read_text(encoding="utf-8")

    assert "2.00†" in text
    assert "1.00†" not in text
    assert "these numbers do not compare" in text


def test_a_number_by_another_protocol_is_not_ranked(tmp_path):
    other = distance(0.5, "Fréchet; n=100")
    values = {"a": distance(1), "b": distance(2), "c": distance(3), "d": other}
    rows = [Row(name, 0, {"fd_domain": value}) for name, value in values.items()]

    text = write_tables(all_tables(rows), tmp_path)[0].read_text(encoding="utf-8")

    assert "**1.00**" in text
    assert "<u>2.00</u>" in text
    assert "| 0.50† |" in text


def test_a_number_that_is_not_finite_is_missing():
    table = main_table([Row("a", 0, {"fd_domain": distance(float("nan"))}), Row("b", 0, {"fd_domain": distance(2)})])

    assert table.text(0, table.lines[0].cells[0]) == "—"
    assert table.lines[1].cells[0].mean == 2


def test_single_factors_stand_in_a_table_of_their_own(rows):
    table = factor_table(rows)

    assert [column.title for column in table.columns] == ["shape"]
    assert [line.name for line in table.bounds] == [
        "floor: chance",
        "ceiling: real, after the autoencoder",
        "ceiling: real",
    ]


def test_runs_that_all_failed_are_still_in_the_table(tmp_path):
    files = write_tables(all_tables([Row("full", 0, {}), Row("concat", 0, {})]), tmp_path)

    assert files[0].read_text(encoding="utf-8").splitlines()[2:4] == ["| full | — | — |", "| concat | — | — |"]
    assert r"full \\" in files[2].read_text(encoding="utf-8")
