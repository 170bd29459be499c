"""What every fuser promises."""

import pytest
import torch

from anastyle import FUSERS, Condition, FactorDims, Keep, Reading, TextDims

TEXT = TextDims(token=12, pooled=20)
WIDTH = 16
DIMS = [FactorDims((1, 8), (1, 8)), FactorDims((2, 4), (3, 5))]


def test_the_built_in_fusers_are_here():
    assert {"hffm", "concat", "text_tokens"} <= set(FUSERS.names())


@pytest.fixture(params=DIMS, ids=str)
def dims(request):
    return request.param


@pytest.fixture(params=FUSERS.names())
def make(request, build, dims):
    return lambda seed=0: build(FUSERS, request.param, seed=seed, text=TEXT, dims=dims, width=WIDTH)


@pytest.fixture
def read(factors, dims):
    """Return a reading with just what a fuser needs."""

    def read(fuser, n=4):
        reading = Reading()
        if "factors" in fuser.needs:
            reading = reading._replace(factors=factors(dims, n))
        if "tokens" in fuser.needs:
            mask = torch.arange(6) < torch.tensor([6, 3, 1, 4])[:n, None]
            tokens, pooled = torch.randn(n, 6, TEXT.token), torch.randn(n, TEXT.pooled)
            reading = reading._replace(tokens=tokens, mask=mask, pooled=pooled)
        return reading

    return read


def keep(anatomy, style):
    return Keep(torch.tensor(anatomy), torch.tensor(style))


def shown(condition, row):
    """Return what a backbone sees of one sample."""
    return condition.tokens[row][condition.mask[row]]


def test_a_condition_has_the_width_of_the_backbone(make, read):
    fuser = make().eval()

    condition = fuser(read(fuser))

    assert isinstance(condition, Condition)
    assert fuser.needs <= {"factors", "tokens"}
    assert condition.tokens.shape == (4, condition.mask.shape[1], WIDTH)
    assert condition.tokens.dtype == torch.float32
    assert condition.mask.dtype == torch.bool
    assert condition.mask.any(dim=1).all()
    assert condition.tokens.isfinite().all()


def test_every_parameter_gets_a_gradient(make, read, promises):
    fuser = make().train()
    some = keep([True, False, True, False], [True, True, False, False])

    condition = fuser(read(fuser), some)

    total = (condition.tokens * condition.mask[..., None]).square().sum()
    if condition.pooled is not None:
        total = total + condition.pooled.square().sum()
    promises.gradients(fuser, total)


def test_what_a_reading_says_matters(make, read):
    fuser = make().eval()

    one, other = fuser(read(fuser)), fuser(read(fuser))

    assert not torch.allclose(shown(one, 0), shown(other, 0))


def test_keeping_all_is_the_default(make, read, alike):
    fuser = make().eval()
    reading = read(fuser)

    alike(fuser(reading), fuser(reading, keep([True] * 4, [True] * 4)), exactly=True)


def test_with_both_factors_dropped_nothing_of_the_reading_is_left(make, read, alike, shaken):
    fuser = shaken(make()).eval()
    none = keep([False] * 4, [False] * 4)

    one, other = fuser(read(fuser), none), fuser(read(fuser), none)

    for row in range(4):
        alike(shown(one, row), shown(other, row), exactly=True)
    alike(one.pooled, other.pooled, exactly=True)


@pytest.mark.parametrize("dropped", ["anatomy", "style"])
def test_a_dropped_factor_gives_way_to_its_null(make, read, alike, shaken, dropped):
    fuser = shaken(make()).eval()
    if "factors" not in fuser.needs:
        pytest.skip("reads no factors")
    reading = read(fuser)
    changed = {dropped: 3 * getattr(reading.factors, dropped).flip(0)}
    other = reading._replace(factors=reading.factors._replace(**changed))
    some = keep([dropped != "anatomy"] * 4, [dropped != "style"] * 4)

    whole, without, without_other = fuser(reading), fuser(reading, some), fuser(other, some)

    alike(without, without_other, exactly=True)
    assert not torch.allclose(whole.tokens, without.tokens)


def test_each_sample_is_dropped_for_itself(make, read, alike):
    fuser = make().eval()
    reading = read(fuser)

    mixed = fuser(reading, keep([True, False, True, False], [True, True, False, False]))

    alike(shown(mixed, 0), shown(fuser(reading), 0))
    alike(shown(mixed, 3), shown(fuser(reading, keep([False] * 4, [False] * 4)), 3))


def test_a_saved_fuser_says_the_same(make, read, promises):
    fuser = make()
    reading = read(fuser)
    some = keep([True, False, True, False], [True, True, False, False])

    promises.saving(fuser, make(seed=1), lambda part: part(reading, some))


def test_a_fuser_says_the_same_every_time(make, read, promises):
    fuser = make()
    reading = read(fuser)

    promises.steadiness(fuser, lambda part: part(reading))
