"""The report: it holds what it was given, stands alone, and draws what can be drawn."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from anastyle.checkpoint import save_tensors
from anastyle.evaluation.charts import curve_plot, decades, merged, thinned, ticks
from anastyle.evaluation.difference_tables import differences
from anastyle.evaluation.differences import Paired
from anastyle.evaluation.pictures import embedded
from anastyle.evaluation.report import (
    Cloud,
    Curve,
    Grid,
    Picture,
    Row,
    Scatter,
    Strip,
    StudyReport,
    tsne,
    write_report,
)
from anastyle.evaluation.study import scatters
from anastyle.evaluation.tables import Ranking
from anastyle.evaluation.values import Value
from anastyle.plan import Node

VOID = {"meta", "img"}


class Balance(HTMLParser):
    """Checks that every element that opens also closes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in ("path", "line", "rect", "circle")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def report() -> StudyReport:
    rows = [
        Row(name, 42, {
            "fd_domain": Value(2 * at + 1.0, 2 * at + 0.5, 2 * at + 1.5, 0.3, 64, "Fréchet: a & b"),
            "factor/shape": Value(0.5 + at / 10, None, None, 0.2, 64, "Accuracy: judge", 0.95, 0.9),
        })
        for at, name in enumerate(("full", "a<b"))
    ]  # fmt: skip
    image = torch.randint(256, (3, 8, 8), dtype=torch.uint8)
    grid = Grid("Samples", [
        Strip("real", [Picture(image, 'a "round" lesion'), Picture(image, "an oval lesion")]),
        Strip("full", [Picture(image, "a round lesion")]),
    ])  # fmt: skip
    curves = [
        Curve("diffuse", "full", [0, 10, 20], [1.0, 0.5, 0.4]),
        Curve("diffuse", "a<b", [0, 10, 20], [1.0, 0.6, 0.5]),
    ]
    panel = Scatter("after", [Cloud("image", [[0, 0], [1, 1]], ["x", "y"]), Cloud("text", [[0, 1]], ["x"])])
    return StudyReport("phantom", "Four rows.", rows, curves, [grid], [panel], ["A note."], "name: phantom\n")


def test_the_page_is_well_formed_and_asks_the_network_for_nothing(report, tmp_path):
    text = write_report(report, tmp_path).read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(text)

    assert parser.open == []
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert len(parser.addresses) == 3
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)


def test_the_page_shows_what_it_was_given_and_escapes_it(report, tmp_path):
    text = write_report(report, tmp_path).read_text(encoding="utf-8")

    for words in ("Four rows.", "a&lt;b", "Fréchet", "a &amp; b", "A note.", "name: phantom", "Not for clinical use"):
        assert words in text
    assert "a<b" not in text
    assert 'title="a &quot;round&quot; lesion"' in text
    assert "<b>1.00</b>" in text
    assert "0.50 – 1.50" in text
    assert text.count("<svg") >= 3
    assert "prefers-color-scheme: dark" in text


def test_a_study_with_nothing_but_a_table_has_no_empty_sections(report, tmp_path):
    bare = StudyReport("bare", "Only numbers.", report.rows)

    text = write_report(bare, tmp_path).read_text(encoding="utf-8")

    assert "Results" in text
    for title in ("Training", "Alignment", "Samples", "Configuration"):
        assert f"<h2>{title}" not in text
        assert f">{title}<" not in text


def test_a_study_that_failed_everywhere_still_has_a_page(tmp_path):
    text = write_report(StudyReport("lost", "Nothing ran.", [Row("full", 1, {})]), tmp_path).read_text(encoding="utf-8")

    assert "No run of this study has reached its evaluation" in text


def test_rows_are_compared_where_their_results_by_caption_are_stored(report, tmp_path):
    for row in report.rows:
        hits = np.asarray([float(at % 4 < (1 if row.variant == "full" else 3)) for at in range(64)])
        value = Value(float(hits.mean()), n=64, protocol="Accuracy: judge", samples=hits)
        row.values["factor_mean"] = value
        object.__setattr__(row, "samples", {"factor_mean": hits})
    paired = Paired(report.rows)
    report.ranking, report.differences = Ranking(paired), differences(report.rows, paired)

    text = write_report(report, tmp_path).read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(text)

    assert parser.open == []
    assert "<h2>Paired differences" in text
    assert "<b>-50.0</b>" in text
    assert "full − a&lt;b" in text
    assert "behind" in text


def test_missing_cells_are_visible(report, tmp_path):
    report.rows.append(Row("third", 42, {}))

    assert write_report(report, tmp_path).read_text(encoding="utf-8").count("—") >= 2


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((300, 400, 3), np.uint8),
        np.zeros((9, 9), np.uint8),
        torch.zeros(3, 9, 9, dtype=torch.uint8),
        torch.zeros(1, 9, 9, dtype=torch.uint8),
        Image.new("RGB", (9, 9)),
    ],
)
def test_images_of_any_kind_are_embedded(image):
    assert embedded(image).startswith("data:image/png;base64,iVBOR")


def test_an_image_of_floats_is_refused():
    with pytest.raises(ValueError, match="must be uint8"):
        embedded(np.zeros((4, 4, 3)))


def test_variants_that_share_a_stage_share_its_line():
    curves = [Curve("align", name, [0, 1], values) for name, values in (("a", [2, 1]), ("b", [2, 1]), ("c", [3, 1]))]

    plot = curve_plot("align", curves, {"a": 0, "b": 1, "c": 2})

    assert [names for names, _ in merged(curves)] == [["a", "b"], ["c"]]
    assert plot.count("<path") == 2
    assert "var(--ink)" in plot


@pytest.mark.parametrize(
    "values", [[0.5], [0.0, 0.0, 0.0], [1e-6, 1e3], [-2.0, 3.0], [float("nan"), 1.0, 2.0], [1.0, 1.0]]
)
def test_any_curve_can_be_drawn(values):
    plot = curve_plot(
        "s", [Curve("a", "a", list(range(len(values))), values), Curve("b", "b", [], [])], {"a": 0, "b": 1}
    )

    assert "nan" not in plot
    assert plot.count("<path") == 1


def test_a_long_curve_is_thinned_without_losing_its_mean():
    steps, values = thinned(Curve("s", "a", range(5000), np.linspace(0, 1, 5000).tolist()))

    assert len(steps) == len(values) == 160
    assert values.mean() == pytest.approx(0.5, abs=0.01)


def test_axes_carry_round_numbers():
    assert ticks(0, 1000, count=4) == [0, 250, 500, 750, 1000]
    assert ticks(-0.1, 0.32, count=4) == pytest.approx([0.0, 0.2], abs=0.11)
    assert decades(0.05, 20) == pytest.approx([0.1, 0.3, 1, 3, 10])


def test_tsne_repeats_and_keeps_clusters_together():
    rng = np.random.default_rng(0)
    centres = np.asarray([[5.0, 0, 0, 0], [0, 5.0, 0, 0]]).repeat(20, axis=0)
    codes = {"image": centres + rng.normal(0, 0.3, (40, 4)), "text": (centres + rng.normal(0, 0.3, (40, 4)))[:, None]}

    one, two = tsne(codes, seed=1), tsne(codes, seed=1)

    assert {name: points.shape for name, points in one.items()} == {"image": (40, 2), "text": (40, 2)}
    assert all(np.array_equal(one[name], two[name]) for name in one)
    inside = np.linalg.norm(one["image"][:20].mean(0) - one["text"][:20].mean(0))
    across = np.linalg.norm(one["image"][:20].mean(0) - one["text"][20:].mean(0))
    assert inside < 0.3 * across


def test_tsne_refuses_what_it_cannot_lay_out():
    with pytest.raises(ValueError, match="of one width"):
        tsne({"a": np.zeros((5, 3)), "b": np.zeros((5, 4))})
    with pytest.raises(ValueError, match="401"):
        tsne({"a": np.zeros((401, 3))})
    with pytest.raises(ValueError, match="not finite"):
        tsne({"a": np.full((5, 3), np.nan)})


def test_codes_of_two_widths_have_no_map_in_common(tmp_path):
    codes = {f"{when}/label": torch.zeros(12).long() for when in ("before", "after")}
    for when in ("before", "after"):
        for name, width in (("visual_anatomy", 6), ("text_anatomy", 9), ("visual_style", 6), ("text_style", 6)):
            codes[f"{when}/{name}"] = torch.randn(12, width)
    save_tensors(tmp_path / "codes.safetensors", codes)
    plan = {"align": Node("align", "0", tmp_path, {})}

    found = scatters({"row": plan}, ["one"])

    assert [scatter.title for scatter in found] == ["style, before alignment", "style, after alignment"]
