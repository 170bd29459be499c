"""Paired differences: what rows share falls out, few seeds widen, and what cannot be compared is not."""

import csv

import numpy as np
import pytest

from anastyle.evaluation.bootstrap import share
from anastyle.evaluation.difference_tables import compact, differences, write_differences
from anastyle.evaluation.differences import HALVES, Paired, half_width, redrawn
from anastyle.evaluation.distances import frechet, frechets, half_samples, interval
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.samples import Row, samples_of
from anastyle.evaluation.tables import Ranking, main_table
from anastyle.evaluation.values import Value

N = 240
KEY = "factor_mean"


def run(variant: str, seed: int, hits: np.ndarray, *, protocol: str = "Accuracy: judge", key: str = KEY) -> Row:
    """Return a run whose hits (parts, n) are stored."""
    low_high = share(hits, Settings(draws=200))
    return Row(variant, seed, {key: Value(*low_high, n=hits.shape[-1], protocol=protocol, samples=hits)}, {key: hits})


def study(seeds: int = 3, *, gain: float = 0.04, n: int = N, seed: int = 0) -> list[Row]:
    """Return two rows of hits that hang on the caption far more than on the row; the second hits more often."""
    rng = np.random.default_rng(seed)
    ease = rng.random((4, n))
    rows = []
    for at in range(seeds):
        luck = 0.3 * rng.random((4, n))
        rows += [run(name, at, (ease + luck < level).astype(float)) for name, level in (("a", 0.6), ("b", 0.6 + gain))]
    return rows


def test_a_paired_difference_is_that_of_the_means_and_narrower_than_an_unpaired_one():
    rows = study(1)
    one, other = (row.values[KEY] for row in rows)

    found = Paired(rows).between("b", "a", KEY)

    assert found.value == pytest.approx(other.value - one.value)
    assert found.low < found.value < found.high
    unpaired = np.hypot(one.high - one.low, other.high - other.low)
    assert found.high - found.low < 0.6 * unpaired
    assert found.low > 0, "paired, it separates"
    assert other.low < one.high, "unpaired, it would not"


def test_the_other_way_round_it_is_the_same_with_the_other_sign():
    paired = Paired(study())
    there, back = paired.between("a", "b", KEY), paired.between("b", "a", KEY)

    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert there.verdict(lower_is_better=False) == "behind"
    assert there.verdict(lower_is_better=True) == "ahead"


def test_a_row_does_not_differ_from_itself_under_another_name():
    rows = study(2)
    twins = [Row("twin", row.seed, row.values, row.samples) for row in rows if row.variant == "a"]

    found = Paired([*rows, *twins]).between("a", "twin", KEY)

    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert found.verdict(lower_is_better=False) == "not separated"


def test_one_seed_says_nothing_of_other_trainings_and_several_say_how_many():
    one, three = (Paired(study(seeds)).between("a", "b", KEY) for seeds in (1, 3))

    assert one.protocol.endswith("one seed: it says nothing of other trainings")
    assert "the 3 seeds that both have" in three.protocol
    assert (one.seeds, three.seeds, three.n) == (1, 3, N)


def test_seeds_that_only_one_row_has_are_left_out():
    rows = study(3)
    fewer = [row for row in rows if (row.variant, row.seed) != ("b", 1)]

    found = Paired(fewer).between("a", "b", KEY)

    values = {(row.variant, row.seed): row.values[KEY].value for row in rows}
    assert found.seeds == 2
    assert found.value == pytest.approx(np.mean([values["a", at] - values["b", at] for at in (0, 2)]))


def test_differences_that_change_from_seed_to_seed_do_not_separate():
    rng = np.random.default_rng(0)
    steady, moody = [], []
    for seed, gain in enumerate((0.25, 0.02, 0.12)):
        ease = rng.random((1, N))
        steady += [run("a", seed, (ease < 0.5) * 1.0), run("b", seed, (ease < 0.63) * 1.0)]
        moody += [run("a", seed, (ease < 0.5) * 1.0), run("b", seed, (ease < 0.5 + gain) * 1.0)]

    assert Paired(steady).between("b", "a", KEY).separated
    found = Paired(moody).between("b", "a", KEY)
    assert found.value > 0.1
    assert not found.separated, "three seeds that far apart may as well be chance"


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    seeds, n, held = 3, 60, 0
    for _ in range(200):
        by_caption = 0.5 * rng.standard_normal((1, n)) + 0.5 * rng.standard_normal((seeds, n))
        hits = by_caption + 0.08 * rng.standard_normal((seeds, 1))
        moved = np.mean([redrawn(row[None], 0) for row in hits], axis=0)
        half = half_width(hits.mean(axis=1), moved, n)
        held += abs(hits.mean()) < half

    assert held >= 0.93 * 200


def test_parts_count_alike_however_many_captions_ask_for_them():
    hits = np.stack([np.r_[np.ones(20), np.full(80, np.nan)], np.zeros(100)])
    other = np.stack([np.r_[np.zeros(20), np.full(80, np.nan)], np.zeros(100)])

    found = Paired([run("a", 0, hits), run("b", 0, other)]).between("a", "b", KEY)

    assert found.value == pytest.approx(0.5)


def test_numbers_that_were_measured_differently_or_not_stored_are_not_compared():
    hits = np.ones((1, 30))
    rows = [run("a", 0, hits), run("b", 0, hits, protocol="Accuracy: another judge"), run("c", 1, hits)]
    bare = Row("d", 0, rows[0].values)

    paired = Paired([*rows, bare])

    assert paired.between("a", "b", KEY) is None
    assert paired.between("a", "c", KEY) is None, "no seed in common"
    assert paired.between("a", "d", KEY) is None
    assert paired.between("a", "a", "cost/minutes") is None


def cloud_run(variant: str, fake: np.ndarray, real: np.ndarray) -> Row:
    value = Value(frechet(fake, real), n=len(fake), protocol="Fréchet")
    return Row(variant, 0, {"fd_domain": value}, {"features/domain": fake, "real/domain": real})


def test_distances_are_drawn_again_by_the_same_halves():
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((200, 6)), rng.standard_normal((120, 6)) + 0.5
    near = fake + 0.05 * rng.standard_normal(fake.shape) + 0.03
    rows = [cloud_run("a", fake, real), cloud_run("b", near, real), cloud_run("far", fake + 1, real)]
    paired = Paired(rows)

    found, apart = paired.between("b", "a", "fd_domain"), paired.between("far", "a", "fd_domain")

    assert found.value == pytest.approx(rows[1].values["fd_domain"].value - rows[0].values["fd_domain"].value)
    low, high = interval(0, half_samples(frechets, fake, real, draws=HALVES))
    assert found.high - found.low < 0.5 * np.hypot(high - low, high - low)
    assert apart.verdict(lower_is_better=True) == "behind"
    assert "half-samples" in found.protocol


def test_marks_go_by_the_paired_interval():
    rows = study(1)

    assert [line.cells[0].best for line in main_table(rows).lines] == [False, False]
    assert [line.cells[0].best for line in main_table(rows, Ranking(Paired(rows))).lines] == [False, True]


def test_a_study_has_every_pair_and_references_beside_the_variants(tmp_path):
    rows = [*study(2), *(run("bound", at, np.ones((4, N))) for at in range(2))]
    told = differences(rows, Paired(rows), ["bound"])

    write_differences(told, tmp_path)

    with (tmp_path / "differences.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["first"], line["second"]) for line in lines] == [("a", "b"), ("a", "bound"), ("b", "bound")]
    assert {line["verdict"] for line in lines[1:]} == {"behind"}
    assert all(line["captions"] == str(N) and line["seeds"] == "2" and line["protocol"] for line in lines)
    assert float(lines[0]["low"]) < float(lines[0]["difference"]) < float(lines[0]["high"])
    assert "| a | bound | **-" in (tmp_path / "differences.md").read_text(encoding="utf-8")
    assert compact(told).startswith("### Paired differences")


def test_runs_without_stored_results_have_no_differences(tmp_path):
    rows = [Row(row.variant, row.seed, row.values) for row in study(1)]

    assert compact(differences(rows, Paired(rows))) == ""
    assert samples_of(tmp_path) is None
