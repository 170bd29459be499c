"""Memory is counted operation by operation, without any: what is kept, and the most that is held."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anastyle.accounting.memory import measure, too_much

ROW = 50 * 100 * 4  # bytes of 50 samples of 100 numbers


@pytest.fixture
def layers() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(100, 100, bias=False) for _ in range(4)))


def sample() -> torch.Tensor:
    return torch.empty(50, 100, device="meta")


def test_a_chain_keeps_what_its_gradients_need(layers: nn.Sequential) -> None:
    image = sample()

    found = measure(lambda: layers(image).sum())

    assert found.kept == 3 * ROW + 4  # the inputs of all but the first, and the sum


def test_without_gradients_nothing_is_kept(layers: nn.Sequential) -> None:
    image = sample()

    with torch.no_grad():
        found = measure(lambda: layers(image).sum())

    assert found.kept == 4
    assert found.peak >= 2 * ROW


def test_a_backward_pass_counts_its_gradients(layers: nn.Sequential) -> None:
    image = sample()

    found = measure(lambda: layers(image).sum(), backward=True)

    assert found.peak >= 3 * ROW + 4 * 100 * 100


def test_what_is_computed_twice_is_not_kept(layers: nn.Sequential) -> None:
    from torch.utils.checkpoint import checkpoint

    image = sample().requires_grad_()

    found = measure(lambda: checkpoint(layers, image, use_reentrant=False).sum())

    assert found.kept == 4


def test_fused_attention_keeps_no_weights() -> None:
    query, key, value = (torch.empty(1, 2, 512, 16, device="meta", requires_grad=True) for _ in range(3))

    def attend() -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value).sum()

    weights = 2 * 512 * 512 * 4
    assert measure(attend).kept >= weights
    assert measure(attend, flash=True).kept < weights / 4


def test_what_is_computed_twice_meets_the_same_attention() -> None:
    from torch.utils.checkpoint import checkpoint

    query = torch.empty(1, 2, 64, 16, device="meta", requires_grad=True)

    def attend(tensor: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(tensor, tensor, tensor).sum()

    def twice() -> torch.Tensor:
        again = checkpoint(attend, query, use_reentrant=False)
        assert isinstance(again, torch.Tensor)
        return again

    assert measure(twice, backward=True, flash=True).peak > 0


def test_real_tensors_count_alike() -> None:
    layer, image = nn.Linear(100, 100, bias=False), torch.zeros(50, 100)

    assert measure(lambda: layer(layer(image)).sum()).kept == ROW + 4


@pytest.mark.parametrize(("kept", "free", "much"), [(10, 20, False), (20, 20, True), (17, 20, True)])
def test_a_backward_pass_is_left_some_room(kept: int, free: int, much: bool) -> None:
    assert too_much(kept, free) is much
