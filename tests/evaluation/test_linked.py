"""Captions that break a link: kept or painted as linked, on answers made by hand."""

import numpy as np
import pytest
import torch

from anastyle.evaluation.control.linked import Told, breaks, linked_values
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.tables import Row, control_tables

VALUES = {"shape": ["round", "oval"], "palette": ["red", "blue", "brown"]}
LINKS = {"palette": {"follows": "shape", "values": {"round": "blue", "oval": "red"}}}
SHAPE = torch.tensor([0, 0, 1, 1, 0] * 6)
PALETTE = torch.tensor([1, 0, 0, 2, 2] * 6)  # linked, broken, linked, broken, broken
USUAL = torch.tensor([1, 1, 0, 0, 1] * 6)
ASKED = {"shape": SHAPE, "palette": PALETTE}
DRAWS = Settings(draws=50)


def measured(painted: torch.Tensor, asked=ASKED):
    told = Told({"shape": SHAPE, "palette": painted}, {"shape": SHAPE, "palette": PALETTE})
    return linked_values(told, asked, LINKS, VALUES, "judge-test", DRAWS)


def test_a_caption_breaks_a_link_where_it_asks_for_another_style_than_its_anatomy_brings():
    found = breaks(ASKED, "palette", LINKS["palette"], VALUES)

    assert torch.equal(found.usual, USUAL)
    assert found.differ.tolist() == [False, True, False, True, True] * 6


def test_what_is_painted_as_asked_is_kept_and_what_follows_anatomy_is_as_linked():
    kept, mixed = measured(PALETTE), measured(USUAL)

    assert set(kept) == {"linked/kept", "linked/as_linked", "linked/palette/kept", "linked/palette/as_linked"}
    assert (kept["linked/kept"].value, kept["linked/as_linked"].value) == (1, 0)
    assert (mixed["linked/kept"].value, mixed["linked/as_linked"].value) == (0, 1)
    assert kept["linked/kept"].ceiling == 1
    assert mixed["linked/as_linked"].floor == 0, "real images of these captions do not show it"
    assert all(value.n == 18 and value.protocol for value in kept.values())


def test_only_broken_links_count_and_are_stored_by_caption():
    painted = PALETTE.clone()
    painted[0::5] = 2  # captions that keep the link are painted wrong
    painted[1::5] = 1  # a third of the broken ones as linked
    found = measured(painted)

    assert found["linked/palette/kept"].value == pytest.approx(2 / 3)
    assert found["linked/palette/as_linked"].value == pytest.approx(1 / 3)
    assert np.isnan(found["linked/palette/kept"].samples).sum() == 12
    assert found["linked/palette/kept"].low < 2 / 3 < found["linked/palette/kept"].high


def test_unknown_factors_and_links_that_hardly_a_caption_breaks_are_left_out():
    unknown = {**ASKED, "shape": torch.full_like(SHAPE, -1)}
    follows = {**ASKED, "palette": USUAL}

    assert measured(PALETTE, unknown) == {}
    assert measured(PALETTE, follows) == {}


def test_links_have_a_table_of_their_own():
    (table,) = control_tables([Row("full", 0, measured(PALETTE))])

    assert table.title.startswith("Captions that break a link")
    assert [(column.title, column.arrow) for column in table.columns] == [
        ("as asked", "↑"), ("palette as asked", "↑"), ("as linked", "↓"), ("palette as linked", "↓"),
    ]  # fmt: skip
