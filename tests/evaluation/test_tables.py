"""Tables: marks, means, missing cells, and numbers that must not be compared."""

import csv

import pytest

from anastyle.evaluation.formats import escape, write_seeds, write_tables
from anastyle.evaluation.overview import all_tables
from anastyle.evaluation.tables import Ranking, Row, factor_table, main_table
from anastyle.evaluation.values import Card, Value


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


def best(table) -> list[list[bool]]:
    return [[cell.best for cell in line.cells] for line in table.lines]


def test_the_best_is_marked_in_the_right_direction_with_all_that_does_not_separate_from_it(rows):
    table = main_table(rows)

    assert [column.key for column in table.columns] == ["fd_domain", "factor_mean"]
    # 4.0 of two seeds reaches up to 6.0, and 6.0 of one down to 5.0; of 0.85 and 0.95 nothing is sure either
    assert best(table) == [[True, False], [True, False], [False, False]]
    assert [column.arrow for column in table.columns] == ["↓", "↑"]


def test_nothing_is_marked_where_nothing_separates():
    near = [Row(name, 0, {"fd_domain": distance(value)}) for name, value in (("a", 3.0), ("b", 4.0), ("c", 4.9))]
    far = [*near, Row("d", 0, {"fd_domain": distance(9.0)})]

    assert best(main_table(near)) == [[False], [False], [False]]
    assert best(main_table(far)) == [[True], [True], [True], [False]]


def test_numbers_without_any_interval_do_not_separate():
    rows = [Row(name, 0, {"fd_domain": Value(value, n=9, protocol="how")}) for name, value in (("a", 1.0), ("b", 9.0))]

    assert best(main_table(rows)) == [[False], [False]]


def seeds(name: str, *numbers: float) -> list[Row]:
    return [Row(name, seed, {"fd_domain": distance(number)}) for seed, number in enumerate(numbers)]


def test_over_seeds_two_rows_separate_beyond_two_standard_errors():
    close = [*seeds("a", 3.0, 3.4, 3.2), *seeds("b", 3.1, 3.6, 3.4)]
    apart = [*seeds("a", 3.0, 3.4, 3.2), *seeds("b", 4.1, 4.6, 4.4)]

    assert best(main_table(close)) == [[False], [False]]
    assert best(main_table(apart)) == [[True], [False]]


def real_like(value: float, *, held: int = 320, what: str = "Fréchet") -> Value:
    card = Card(what, "net", 8, "none", 64, 320, 700, held, "real", "95 %")
    return Value(value, value - 0.01, value + 0.01, 3.0, 320, "how", card=card)


@pytest.mark.parametrize("key", ["fd_domain", "density"])
def test_a_number_beyond_its_floor_counts_as_the_floor(key):
    better = -1 if key == "fd_domain" else 1
    rows = [Row(name, 0, {key: real_like(3.0 + better * beyond)}) for name, beyond in (("a", 0.5), ("b", 1.5))]
    worse = Row("c", 0, {key: real_like(3.0 - better)})

    assert best(main_table(rows)) == [[False], [False]]
    assert best(main_table([*rows, worse])) == [[True], [True], [False]]


def test_references_stand_below_unranked_in_italics(rows, tmp_path):
    ranking = Ranking(references=["upper_bound"])
    rows.insert(0, Row("upper_bound", 42, {"fd_domain": distance(0.6)}))

    table = main_table(rows, ranking)
    files = write_tables(all_tables(rows, ranking), tmp_path)

    assert [line.name for line in table.lines] == ["full", "naive_concat", "class_label", "upper_bound"]
    assert best(table)[-1] == [False, False]
    assert best(table)[0] == [True, False]
    text = files[0].read_text(encoding="utf-8")
    assert "| *upper_bound* | 1 | 512 | *0.60* | — |" in text
    assert "references beside the variants" in text
    assert r"\emph{upper\_bound} & \emph{0.60}" in files[2].read_text(encoding="utf-8")


def test_every_ranked_table_says_what_its_marks_mean(rows, tmp_path):
    text = write_tables(all_tables(rows), tmp_path)[0].read_text(encoding="utf-8")

    assert text.count("Bold: the best row and every row that does not separate from it") == 2
    assert "<u>" not in text
    assert main_table(rows[:1]).legend == ""


def test_a_floor_of_other_many_images_carries_a_dagger_and_the_reason(tmp_path):
    def text(value: Value) -> str:
        rows = [Row("a", 0, {"fd_domain": value})]
        return write_tables(all_tables(rows), tmp_path)[0].read_text(encoding="utf-8")

    assert "*3.00†*" in text(real_like(4.0, held=160))
    assert "other many images" in text(real_like(4.0, held=160))
    assert "†" not in text(real_like(4.0, held=316))
    assert "†" not in text(real_like(4.0, held=160, what="Kernel distance (unbiased)"))


def test_corrected_factors_are_in_the_csv_alone(tmp_path):
    values = {"factor/shape": share(0.8), "corrected/shape": share(0.85)}

    files = write_tables(all_tables([Row("a", 0, values)]), tmp_path)

    assert "85.0" not in files[0].read_text(encoding="utf-8")
    assert "a,corrected/shape,0.85" in files[1].read_text(encoding="utf-8")


def test_every_run_has_its_lines_in_seeds_csv(rows, tmp_path):
    with write_seeds(rows, tmp_path).open(encoding="utf-8") as file:
        lines = {(line["variant"], line["seed"], line["key"]): line for line in csv.DictReader(file)}

    assert len(lines) == 10
    line = lines["full", "43", "factor/shape"]
    numbers = [float(line[name]) for name in ("value", "low", "high", "floor", "decoded", "ceiling")]
    assert numbers == pytest.approx([0.9, 0.8, 1.0, 0.25, 0.9, 0.97])
    assert line["n"] == "512"


def test_seeds_become_a_mean_and_a_standard_deviation(rows):
    table = main_table(rows)

    assert table.text(0, table.lines[0].cells[0]) == "4.00 ± 1.41"
    assert table.text(0, table.lines[1].cells[0]) == "6.00"
    assert (table.lines[1].cells[0].low, table.lines[1].cells[0].high) == (5.0, 7.0)


def test_markdown_shows_floor_ceiling_protocol_and_missing_cells(rows, tmp_path):
    text = write_tables(all_tables(rows), tmp_path)[0].read_text(encoding="utf-8")

    assert "| full | 2 | 512 | **4.00 ± 1.41** | 85.0 ± 7.1 |" in text
    assert "| naive_concat | 1 | 512 | **6.00** | 95.0 |" in text
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
    assert r"\textbf{6.00}" in text
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
    values = {"a": distance(1), "b": distance(4), "d": other}
    rows = [Row(name, 0, {"fd_domain": value}) for name, value in values.items()]

    text = write_tables(all_tables(rows), tmp_path)[0].read_text(encoding="utf-8")

    assert "**1.00**" in text
    assert "| 4.00 |" in text
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
