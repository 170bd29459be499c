"""What every aligner promises."""

import pytest
import torch

from anastyle import ALIGNERS, Embedded, FactorDims, Reading, TextDims

TEXT = TextDims(token=12, pooled=20)
DIMS = [FactorDims((1, 8), (1, 8)), FactorDims((2, 4), (3, 5))]


def test_the_built_in_aligners_are_here():
    assert {"clinicalbert_mlp", "t5_lora", "token_reader"} <= set(ALIGNERS.names())


@pytest.fixture(params=DIMS, ids=str)
def dims(request):
    return request.param


@pytest.fixture(params=ALIGNERS.names())
def make(request, build, dims):
    return lambda seed=0: build(ALIGNERS, request.param, seed=seed, text=TEXT, dims=dims)


@pytest.fixture
def embedded():
    mask = torch.arange(6) < torch.tensor([[6], [3], [1], [4]])
    return Embedded(torch.randn(4, 6, TEXT.token), mask, torch.randn(4, TEXT.pooled))


def test_a_reading_holds_what_the_aligner_gives(make, embedded, dims):
    aligner = make().eval()

    reading = aligner(embedded)

    assert isinstance(reading, Reading)
    assert aligner.gives
    assert aligner.gives <= {"factors", "tokens"}
    assert (reading.factors is not None) == ("factors" in aligner.gives)
    assert (reading.tokens is not None) == ("tokens" in aligner.gives)
    if reading.factors is not None:
        given = aligner.dims or dims
        assert reading.factors.anatomy.shape == (4, *given.anatomy)
        assert reading.factors.style.shape == (4, *given.style)
    if reading.tokens is not None:
        assert reading.tokens.shape[0] == 4
        assert reading.mask.shape == reading.tokens.shape[:2]
        assert reading.mask.dtype == torch.bool


def test_losses_reach_every_parameter(make, embedded, dims, factors, promises):
    aligner = make().train()
    if not aligner.trained:
        with pytest.raises(NotImplementedError):
            aligner.losses(embedded, factors(dims))
        return

    total = promises.finite(aligner.losses(embedded, factors(dims)))

    promises.gradients(aligner, total)


def test_a_caption_is_read_the_same_every_time(make, embedded, promises):
    promises.steadiness(make(), lambda aligner: aligner(embedded))


def test_a_saved_aligner_reads_the_same(make, embedded, promises):
    promises.saving(make(), make(seed=1), lambda aligner: aligner(embedded))
