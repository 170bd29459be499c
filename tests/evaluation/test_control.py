"""Leakage matrix, probes, DCI and retrieval, on answers and codes whose true values are known."""

import numpy as np
import pytest
import torch

from anastyle.evaluation.control.change import changes, look
from anastyle.evaluation.control.codes import Codes, dci, probes, ranks, retrieval
from anastyle.evaluation.control.leakage import Asked, leakage
from anastyle.evaluation.control.measured import code_values, kinds_of
from anastyle.evaluation.formats import write_tables
from anastyle.evaluation.overview import all_tables
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.tables import Row, control_tables, main_table

KINDS = {"anatomy": ("shape", "size"), "style": ("palette",)}
FACTORS = {"shape": 5, "size": 3, "palette": 4}
DRAWS = Settings(draws=50)
PAIRS = 400


def asked(seed: int = 0) -> Asked:
    rng = torch.Generator().manual_seed(seed)
    first, second = (
        {name: torch.randint(0, values, (PAIRS,), generator=rng) for name, values in FACTORS.items()} for _ in range(2)
    )
    return Asked(first, second)


def painted(asked: Asked, *, leak: float = 0.0, deaf: float = 0.0, seed: int = 1) -> dict[str, dict[str, torch.Tensor]]:
    """Return the answers of a painter who, of each factor, is deaf to its text or follows the other one at times."""
    rng = torch.Generator().manual_seed(seed)
    first, second = asked

    def swapped(text: str) -> dict[str, torch.Tensor]:
        found = {}
        for kind, names in KINDS.items():
            follow = 1 - deaf if kind == text else leak
            for name in names:
                take = torch.rand(PAIRS, generator=rng) < follow
                found[name] = torch.where(take, second[name], first[name])
        return found

    return {"same": dict(first), "anatomy": swapped("anatomy"), "style": swapped("style"), "noise": dict(first)}


def matrix(answers, asked):
    found = leakage(answers, asked, KINDS, "judge-test", DRAWS)
    return {key.removeprefix("swap/"): value for key, value in found.items()}


def test_perfect_control_is_one_on_the_diagonal_and_nothing_beside_it():
    question = asked()
    found = matrix(painted(question), question)

    assert {key: value.value for key, value in found.items()} == {
        "anatomy/anatomy": 1,
        "anatomy/style": 0,
        "anatomy/style/excess": 0,
        "anatomy/arrived": 1,
        "style/anatomy": 0,
        "style/anatomy/excess": 0,
        "style/style": 1,
        "style/arrived": 1,
        "noise/anatomy": 0,
        "noise/style": 0,
        "leakage_excess": 0,
    }
    assert all(not value.floor for value in found.values())


def test_leaks_and_deafness_are_found_at_their_size():
    question = asked()
    found = matrix(painted(question, leak=0.4, deaf=0.25), question)

    for own in ("anatomy/anatomy", "style/style"):
        assert found[own].low < 0.75 < found[own].high
    # a leaked factor changes only where the captions differ: of shapes 4 in 5, of sizes 2 in 3
    assert found["style/anatomy"].value == pytest.approx(0.4 * (4 / 5 + 2 / 3) / 2, abs=0.05)
    assert found["anatomy/style"].value == pytest.approx(0.4 * 3 / 4, abs=0.06)


def test_what_noise_alone_changes_is_the_floor():
    question = asked()
    answers = painted(question)
    rng = torch.Generator().manual_seed(5)
    answers["noise"] = {name: torch.randint(0, values, (PAIRS,), generator=rng) for name, values in FACTORS.items()}
    found = matrix(answers, question)

    assert found["anatomy/style"].floor == pytest.approx(3 / 4, abs=0.06)
    assert found["anatomy/anatomy"].floor == pytest.approx((4 / 5 + 2 / 3) / 2, abs=0.06)


def test_every_system_has_its_own_floor_and_leaks_by_what_lies_above_it():
    question = asked()
    restless, leaky = painted(question), painted(question, leak=0.3)
    rng = torch.Generator().manual_seed(7)
    for name, values in FACTORS.items():  # three in ten answers are another whatever is exchanged, noise or text
        shuffled = (question.first[name] + torch.randint(1, values, (PAIRS,), generator=rng)) % values
        moved = torch.where(torch.rand(PAIRS, generator=rng) < 0.3, shuffled, question.first[name])
        restless["noise"][name] = moved
        for text, names in KINDS.items():
            if name not in names:
                restless[text][name] = moved

    found, leaks = matrix(restless, question), matrix(leaky, question)

    assert found["style/anatomy"].value == pytest.approx(0.3, abs=0.05)
    assert found["noise/anatomy"].value == pytest.approx(found["style/anatomy"].value)
    assert found["noise/style"].floor is None
    for key in ("style/anatomy/excess", "anatomy/style/excess", "leakage_excess"):
        assert found[key].value == 0, "it moves no more than noise does"
        assert leaks[key].low > 0.1, "noise moves nothing, its texts do"
    assert leaks["noise/anatomy"].value == 0
    assert leaks["leakage_excess"].samples.shape == (3, PAIRS)


def test_a_change_to_something_else_does_not_arrive():
    question = asked()
    wrong = painted(question)
    for name in KINDS["anatomy"]:  # another value than before, and never the one asked for
        first, second, values = question.first[name], question.second[name], FACTORS[name]
        others = (first + 1) % values
        wrong["anatomy"][name] = torch.where(others == second, (first + 2) % values, others)

    found = matrix(wrong, question)

    assert found["anatomy/anatomy"].value == 1
    assert found["anatomy/arrived"].value == 0
    assert found["style/arrived"].value == 1
    assert found["anatomy/arrived"].floor == 0
    assert np.isnan(found["anatomy/arrived"].samples).any(), "where both captions ask the same, nothing is to arrive"


def test_factors_are_sorted_by_kind_or_not_at_all():
    known = {name: torch.zeros(3) for name in FACTORS}
    assert kinds_of(known, ["shape", "size"]) == KINDS
    assert kinds_of(known, []) == {}
    assert kinds_of({}, ["shape"]) == {}


@pytest.fixture
def factors():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, values, 300) for name, values in FACTORS.items()}


def code(factors, names, rng, *, noise=0.05, mixed=False):
    """Return one-hot codes of some factors, or a random turn of them, with a little noise."""
    points = np.concatenate([np.eye(FACTORS[name])[factors[name]] for name in names], axis=1)
    if mixed:
        points = points @ np.linalg.qr(rng.standard_normal((points.shape[1], points.shape[1])))[0]
    return points + noise * rng.standard_normal(points.shape)


def test_probes_find_what_is_in_a_code_and_nothing_else(factors):
    rng = np.random.default_rng(1)
    clean = Codes(code(factors, ["shape", "size"], rng), code(factors, ["palette"], rng))
    leaky = clean._replace(anatomy=code(factors, ["shape", "size", "palette"], rng))

    found = probes(clean, "text", factors, KINDS, DRAWS)
    worse = probes(leaky, "text", factors, KINDS, DRAWS)

    assert found["probe/text/anatomy/anatomy"].value > 0.98
    assert found["probe/text/style/style"].value > 0.98
    for key in ("probe/text/anatomy/style", "probe/text/style/anatomy"):
        assert found[key].value == pytest.approx(found[key].floor, abs=0.1)
    assert worse["probe/text/anatomy/style"].value > 0.98


def test_dci_falls_when_codes_are_mixed(factors):
    def scores(mixed):
        rng = np.random.default_rng(2)
        both = code(factors, FACTORS, rng, mixed=mixed)
        found = dci(Codes(both[:, :8], both[:, 8:]), "visual", factors)
        return {key.removeprefix("dci/visual/"): value.value for key, value in found.items()}

    apart, mixed = scores(False), scores(True)

    assert apart["disentanglement"] > mixed["disentanglement"] + 0.3
    assert apart["informativeness"] > 0.95
    assert all(0 <= value <= 1 for value in [*apart.values(), *mixed.values()])


def test_a_caption_finds_its_own_image():
    rng = np.random.default_rng(3)
    points = rng.standard_normal((200, 6))
    near = Codes(points + 0.01 * rng.standard_normal(points.shape), rng.standard_normal((200, 6)))

    found = retrieval(Codes(points, points), near, "after", DRAWS)

    assert found["retrieval/after/anatomy@1"].value > 0.98
    style = found["retrieval/after/style@10"]
    assert style.floor == 0.05
    assert style.low - 0.05 < style.floor < style.high + 0.05


def test_captions_that_read_alike_are_ranked_by_chance():
    found = ranks(np.ones((101, 3)), np.random.default_rng(4).standard_normal((101, 3)))
    assert found.mean() == pytest.approx(50, abs=1)


def test_control_has_tables_of_its_own(factors, tmp_path):
    question = asked()
    rng = np.random.default_rng(1)
    values = leakage(painted(question), question, KINDS, "judge-test", DRAWS)
    values |= probes(
        Codes(code(factors, ["shape"], rng), code(factors, ["palette"], rng)), "text", factors, KINDS, DRAWS
    )
    rows = [Row("full", 1, values), Row("words", 1, {})]

    swaps, probed = control_tables(rows)

    assert [column.title for column in main_table(rows).columns] == ["Leakage above own floor, %"]
    assert {column.title: column.arrow for column in swaps.columns} == {
        "anatomy text moves anatomy": "↑",
        "anatomy text moves style": "↓",
        "anatomy text moves style, above own floor": "↓",
        "anatomy text arrives": "↑",
        "style text moves anatomy": "↓",
        "style text moves anatomy, above own floor": "↓",
        "style text moves style": "↑",
        "style text arrives": "↑",
        "other noise moves anatomy: own floor": "",
        "other noise moves style: own floor": "",
    }
    assert probed.columns[0].title == "text anatomy code tells anatomy"
    write_tables(all_tables(rows), tmp_path)
    assert "other noise, same words" in (tmp_path / "table.md").read_text()


def discs(radius, colour, grain=0.0, *, seed=0, size=32):
    """Return 24 discs, uint8 (24, 3, 32, 32), on grey; ``radius`` (24,), ``colour`` (24, 3) of 255."""
    axis = torch.arange(size) - size / 2 + 0.5
    inside = (axis[:, None] ** 2 + axis**2).sqrt()[None] < torch.as_tensor(radius)[:, None, None]
    image = torch.where(inside[:, None], torch.as_tensor(colour).float()[:, :, None, None], 200.0)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + grain * inside[:, None] * noise).clamp(0, 255).to(torch.uint8)


def dark(image):
    return image.float().mean(dim=1, keepdim=True) < 150


def test_changes_are_seen_where_they_were_made():
    rng = torch.Generator().manual_seed(0)
    radius, other = 5 + 4 * torch.rand(2, 24, generator=rng)
    colour, another = 60 + 60 * torch.rand(2, 24, 3, generator=rng)
    images = {
        "same": discs(radius, colour),
        "anatomy": discs(other, colour),
        "style": discs(radius, another),
        "noise": discs(radius, colour),
    }
    real = discs(radius, another, 5)

    found = {key: value.value for key, value in changes(images, look(real, dark), dark, "threshold", DRAWS).items()}

    assert found["change/anatomy/outline"] > 0.2
    assert found["change/anatomy/colour"] < 0.05
    assert found["change/style/colour"] > 0.5
    assert found["change/style/outline"] == 0
    assert found["change/anatomy/surroundings"] == 0


def test_grain_changes_texture_and_other_noise_is_the_floor():
    radius, colour = torch.full((24,), 8.0), torch.full((24, 3), 90.0)
    smooth, grainy = discs(radius, colour), discs(radius, colour, 20)
    images = {"same": smooth, "anatomy": smooth, "style": grainy, "noise": discs(radius + 1, colour)}
    real = torch.cat([discs(radius[:12], colour[:12], grain, seed=grain) for grain in (0, 10)])

    found = changes(images, look(real, dark), dark, "threshold", DRAWS)

    assert found["change/style/texture"].value > 0.5 > found["change/anatomy/texture"].value
    assert found["change/anatomy/outline"].floor > 0.1 > found["change/anatomy/outline"].value


def test_nothing_is_said_where_no_lesion_is_found():
    blank = torch.full((24, 3, 32, 32), 200, dtype=torch.uint8)
    assert (
        changes(
            dict.fromkeys(("same", "anatomy", "style", "noise"), blank), look(blank, dark), dark, "threshold", DRAWS
        )
        == {}
    )


def test_codes_of_another_shape_than_the_images_are_probed_and_not_retrieved():
    rng = torch.Generator().manual_seed(0)
    factors = {name: torch.randint(0, values, (60,), generator=rng) for name, values in FACTORS.items()}

    def kept(text_width: int) -> dict[str, torch.Tensor]:
        widths = {"visual": 6, "text": text_width}
        codes = {
            f"{when}/{origin}_{kind}": torch.randn(60, width, generator=rng)
            for when in ("before", "after")
            for origin, width in widths.items()
            for kind in KINDS
        }
        return codes | {"after/label": torch.zeros(60)}

    alike, other = (set(code_values(kept(width), factors, KINDS, DRAWS)) for width in (6, 9))

    assert alike - other == {key for key in alike if key.startswith("retrieval/")} != set()
    assert "probe/text/style/style" in other
