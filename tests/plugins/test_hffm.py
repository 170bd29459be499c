"""What is particular to the two fusers of factors: branches and marks of kind, or one undivided vector."""

import pytest
import torch

from anastyle import ConfigError, FactorDims, Keep, Reading
from anastyle_plugins.fusers.concat import Concat
from anastyle_plugins.fusers.hffm import HFFM

DIMS = FactorDims((1, 8), (1, 8))
WIDTH = 16


def hffm(dims=DIMS, **options):
    return HFFM(HFFM.Config(hidden_dim=12, **options), dims=dims, width=WIDTH)


def concat(dims=DIMS, **options):
    return Concat(Concat.Config(hidden_dim=12, **options), dims=dims, width=WIDTH)


@pytest.fixture
def reading(factors):
    return Reading(factors(DIMS))


def restyled(reading):
    return Reading(reading.factors._replace(style=torch.randn(4, 1, 8)))


def test_anatomy_comes_first_and_factors_do_not_mix(reading):
    fuser = hffm()

    one, other = fuser(reading).tokens, fuser(restyled(reading)).tokens

    assert one.shape == (4, 2, WIDTH)
    torch.testing.assert_close(one[:, 0], other[:, 0])
    assert not torch.allclose(one[:, 1], other[:, 1])


def test_concatenated_factors_mix_in_every_token(reading):
    fuser = concat()

    one, other = fuser(reading).tokens, fuser(restyled(reading)).tokens

    assert one.shape == (4, 2, WIDTH)
    assert not torch.isclose(one[:, 0], other[:, 0]).all(dim=1).any()
    assert not torch.isclose(one[:, 1], other[:, 1]).all(dim=1).any()


def test_the_two_fusers_differ_in_branches_alone():
    one, other = hffm(tokens=2), concat(tokens=4)

    def norms(fuser):
        return sum(isinstance(layer, torch.nn.LayerNorm) for layer in fuser.modules())

    def linear(fuser):
        return sum(layer.weight.numel() for layer in fuser.modules() if isinstance(layer, torch.nn.Linear))

    assert concat().config.tokens == 2 * hffm().config.tokens
    assert one.types.shape == other.types.shape
    assert (norms(one), norms(other)) == (2, 1)
    assert linear(one) == linear(other)
    for layer in (*one.modules(), *other.modules()):
        if isinstance(layer, torch.nn.Linear):
            assert layer.bias.eq(0).all()
            assert layer.weight.abs().max() <= (6 / sum(layer.weight.shape)) ** 0.5  # Xavier's


def test_half_of_the_concatenated_tokens_bear_each_mark(reading):
    fuser = concat(tokens=4)
    with torch.no_grad():
        before = fuser(reading).tokens
        fuser.types[1] += 1
        moved = (fuser(reading).tokens - before).mean(dim=(0, 2))

    torch.testing.assert_close(moved, torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_an_odd_number_of_concatenated_tokens_is_refused():
    with pytest.raises(ConfigError, match="even"):
        concat(tokens=3)


def test_more_tokens_may_be_asked_for(reading):
    assert hffm(tokens=3)(reading).tokens.shape == (4, 6, WIDTH)
    assert concat(tokens=6)(reading).tokens.shape == (4, 6, WIDTH)


def test_the_norm_leaves_mean_and_scale_of_a_factor_behind(reading):
    scaled = Reading(reading.factors._replace(anatomy=100 * reading.factors.anatomy + 7))

    normed, plain = hffm(), hffm(layer_norm=False)

    torch.testing.assert_close(normed(reading).tokens, normed(scaled).tokens, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(plain(reading).tokens, plain(scaled).tokens, atol=1e-2)


def test_each_kind_is_marked(reading):
    fuser = hffm(tokens=2)
    before = fuser(reading).tokens

    with torch.no_grad():
        fuser.types += torch.tensor([[1.0], [5.0]])

    expected = torch.tensor([1.0, 1.0, 5.0, 5.0])[None, :, None].expand_as(before)
    torch.testing.assert_close(fuser(reading).tokens - before, expected)


def test_a_dropped_factor_is_its_null_and_its_mark(reading):
    fuser = hffm()

    tokens = fuser(reading, Keep(torch.tensor([True, False] * 2), torch.tensor([False] * 4))).tokens

    torch.testing.assert_close(tokens[1, 0], fuser.nulls[0, 0] + fuser.types[0])
    torch.testing.assert_close(tokens[0, 1], fuser.nulls[1, 0] + fuser.types[1])
    torch.testing.assert_close(tokens[0, 0], fuser(reading).tokens[0, 0])


def test_concat_replaces_its_part_of_the_vector(reading):
    fuser = concat()
    nulls = reading.factors._replace(style=fuser.style_null.expand(4, 1, 8))

    dropped = fuser(reading, Keep(torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)))

    torch.testing.assert_close(dropped.tokens, fuser(Reading(nulls)).tokens)


def test_weights_start_as_in_the_released_code():
    fuser = HFFM(HFFM.Config(), dims=DIMS, width=512)

    bound = (6 / (8 + 256)) ** 0.5
    first, last = fuser.anatomy[1], fuser.anatomy[3]
    assert first.weight.abs().max() <= bound
    assert first.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert last.bias.abs().max() == 0
    assert fuser.types.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("make", [hffm, concat])
def test_fusing_factors_that_nobody_gives_says_what_to_do(make):
    with pytest.raises(ConfigError, match="encoder is null"):
        make(dims=None)
