"""What a code holds: a factor that was left out probes at chance, and a quiet one is read though it is quiet."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anastyle import FUSERS, Condition, FactorDims, Factors, Reading, TextDims
from anastyle.evaluation.control.inventory import (
    Code,
    factor_codes,
    fused_codes,
    inventory,
    variance_share,
    verdict,
)
from anastyle.evaluation.reference import Settings

N = 400
RNG = np.random.default_rng(0)
FACTORS = {"shape": RNG.integers(4, size=N), "light": RNG.integers(2, size=N), "noise": RNG.integers(2, size=N)}
KINDS = {"anatomy": ["shape"], "style": ["light", "noise"]}
DIMS = FactorDims((1, 6), (2, 3))


def one_hot(name: str, loudness: float = 1.0) -> np.ndarray:
    return loudness * np.eye(FACTORS[name].max() + 1)[FACTORS[name]]


def code(origin: str, kind: str, *parts: np.ndarray) -> Code:
    return Code(origin, kind, np.concatenate([*parts, 0.01 * RNG.standard_normal((N, 2))], axis=1))


def test_a_code_without_a_factor_probes_at_chance_and_is_named() -> None:
    whole = [code("text", "anatomy", one_hot("shape")), code("text", "style", one_hot("light"))]

    found = {it.name: inventory(it, FACTORS, Settings(draws=50)) for it in whole}

    assert found["text anatomy"]["shape"].accuracy > 0.99
    noise = found["text style"]["noise"]
    assert noise.accuracy == pytest.approx(noise.chance, abs=0.08)
    assert noise.variance < 0.02
    told = verdict(found, KINDS)
    assert told.startswith("Below 95 % in the text-read code of its own kind: noise ")
    assert "(style)" in told
    assert "shape" not in told


def test_codes_that_hold_everything_lose_nothing() -> None:
    whole = [code("text", "anatomy", one_hot("shape")), code("text", "style", one_hot("light"), one_hot("noise"))]

    found = {it.name: inventory(it, FACTORS, Settings(draws=0)) for it in whole}

    assert verdict(found, KINDS) == "No factor falls below 95 % in the text-read code of its own kind."
    assert "has none that could lose one" in verdict({}, KINDS)


def test_a_quiet_factor_is_read_and_is_quiet() -> None:
    mixed = code("visual", "style", one_hot("light", 10.0), one_hot("noise", 1.0))

    found = inventory(mixed, FACTORS, Settings(draws=0))

    assert found["noise"].accuracy > 0.99
    assert found["light"].variance > 0.95
    assert 0.005 < found["noise"].variance < 0.03


def test_the_share_of_variance_is_eta_squared_weighted_by_variance() -> None:
    values = np.array([0, 0, 1, 1])
    points = np.array([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [4.0, 2.0]])  # eta squared 1 of variance 4, 0 of 1

    assert variance_share(points, values) == pytest.approx(4 / 5)
    assert variance_share(np.ones((4, 2)), values) == 0


@pytest.mark.parametrize(
    ("fuser", "kinds"),
    [("hffm", ["anatomy", "style"]), ("factor_tokens", ["anatomy", "style"]), ("concat", ["shared"])],
)
def test_a_token_belongs_to_what_moves_it(fuser: str, kinds: list[str]) -> None:
    cls = FUSERS.get(fuser)
    built = cls(cls.Config(), text=TextDims(4, 4), dims=DIMS, width=8).eval()
    drawn = [Factors(torch.randn(8, *DIMS.anatomy), torch.randn(8, *DIMS.style)) for _ in range(2)]

    codes = fused_codes(built, map(Reading, drawn))

    assert [it.kind for it in codes] == kinds
    assert all(len(it.points) == 16 for it in codes)
    tokens = built(Reading(drawn[0])).tokens
    if kinds == ["shared"]:
        assert codes[0].points.shape[1] == tokens.flatten(1).shape[1]
    else:
        first = codes[0].points.shape[1] // tokens.shape[2]
        torch.testing.assert_close(torch.from_numpy(codes[0].points[:8]).float(), tokens[:, :first].flatten(1))


class Words(nn.Module):
    def forward(self, reading: Reading) -> Condition:
        assert reading.tokens is not None
        assert reading.mask is not None
        return Condition(reading.tokens, reading.mask)


def test_words_are_averaged_over_those_that_are_there() -> None:
    tokens = torch.tensor([[[1.0, 3.0], [3.0, 5.0], [90.0, 90.0]]])
    mask = torch.tensor([[True, True, False]])

    (found,) = fused_codes(Words(), [Reading(tokens=tokens, mask=mask)])  # type: ignore[arg-type]

    assert found.name == "fused words"
    assert found.points.tolist() == [[2.0, 4.0]]


def test_factors_of_several_tokens_are_flat() -> None:
    anatomy: Tensor = torch.arange(12.0).reshape(2, 2, 3)

    codes = factor_codes("visual", Factors(anatomy, anatomy))

    assert [it.name for it in codes] == ["visual anatomy", "visual style"]
    assert codes[0].points.shape == (2, 6)
