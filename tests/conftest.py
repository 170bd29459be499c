"""What all tests share: tiny parts, and the promises every part must keep. Nothing is ever downloaded."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything reads it

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from anastyle import AUTOENCODERS, Autoencoder, Batch, Caption, Factors, Losses
from anastyle.registry import Registry

Build = Callable[..., Any]
CAPTIONS = [
    "a small round lesion, sharp border; brown, smooth",
    "one large star-shaped lesion in the upper left",
    "grainy red spot",
    "a lobed lesion under vignetted light, blue-grey and streaked, with a jagged outline and much noise",
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start every test from the same random state."""
    torch.manual_seed(0)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Return ``build(registry, name, seed=0, **wiring)``: a part from its tiny options, or from its defaults.

    A plugin whose defaults are large offers a classmethod ``tiny(tmp_path) -> dict``.
    """

    def build(registry: Registry, name: str, *, seed: int = 0, **wiring: Any) -> Any:
        cls = registry.get(name)
        options = cls.tiny(tmp_path) if hasattr(cls, "tiny") else {}
        torch.manual_seed(seed)
        return cls(cls.Config(**options), **wiring)

    return build


@pytest.fixture
def autoencoder(build: Build) -> Autoencoder:
    """Return a small frozen autoencoder."""
    return build(AUTOENCODERS, "kl").requires_grad_(False).eval()


@pytest.fixture
def batch() -> Batch:
    """Return four images of 32 pixels, with masks, labels and captions."""
    mask = torch.zeros(4, 1, 32, 32)
    mask[:, :, 8:20, 10:24] = 1
    return Batch(
        keys=[f"image-{i}" for i in range(4)],
        index=torch.arange(4),
        image=torch.rand(4, 3, 32, 32) * 2 - 1,
        mask=mask,
        label=torch.tensor([0, 1, 0, 1]),
        captions=[Caption(text) for text in CAPTIONS],
    )


class Promises:
    """What every part that is trained must keep."""

    @staticmethod
    def finite(losses: Losses) -> Tensor:
        """Check that every term is a finite number; return their sum."""
        for name, value in losses.items():
            assert value.shape == (), f"{name} is not a scalar"
            assert value.isfinite(), f"{name} is {value}"
        return torch.stack(list(losses.values())).sum()

    @staticmethod
    def gradients(part: nn.Module, total: Tensor) -> None:
        """Check that every trainable parameter gets a finite gradient."""
        total.backward()
        trainable = {name: p for name, p in part.named_parameters() if p.requires_grad}
        unreached = [name for name, p in trainable.items() if p.grad is None]
        assert not unreached, f"no gradient reaches {unreached}"
        wild = [name for name, p in trainable.items() if p.grad is not None and not p.grad.isfinite().all()]
        assert not wild, f"gradients are not finite in {wild}"

    @staticmethod
    def saving(part: nn.Module, twin: nn.Module, answer: Callable[[Any], Any]) -> None:
        """Check that a twin gives the same answer once it has the part's tensors, through safetensors."""
        shake(part)
        state = {name: value.contiguous().clone() for name, value in part.state_dict().items()}
        if state:
            twin.load_state_dict(load(save(state)))
        same(answer(part.eval()), answer(twin.eval()), exactly=True)

    @staticmethod
    def steadiness(part: nn.Module, answer: Callable[[Any], Any]) -> None:
        """Check that in eval mode an answer is the same every time."""
        shake(part).eval()
        same(answer(part), answer(part), exactly=True)


@pytest.fixture
def promises() -> type[Promises]:
    """Return the checks that all kinds of parts share."""
    return Promises


@pytest.fixture
def alike() -> Callable[..., None]:
    """Return the comparison of two answers: tensors, or records of tensors."""
    return same


@pytest.fixture
def shaken() -> Callable[[nn.Module], nn.Module]:
    """Return what moves a part away from its initial weights."""
    return shake


@torch.no_grad()
def shake(part: nn.Module) -> nn.Module:
    """Add noise to what is trainable, so that layers that start at zero say something."""
    for parameter in part.parameters():
        if parameter.requires_grad:
            parameter += 0.1 * torch.randn_like(parameter)
    return part


def same(one: Any, other: Any, *, exactly: bool = False) -> None:
    """Compare two answers: tensors, records of tensors, or plain values."""
    if isinstance(one, Tensor):
        torch.testing.assert_close(one, other, rtol=0 if exactly else 1e-4, atol=0 if exactly else 1e-5)
    elif isinstance(one, tuple):
        for a, b in zip(one, other, strict=True):
            same(a, b, exactly=exactly)
    else:
        assert one == other


@pytest.fixture
def factors() -> Callable[..., Factors]:
    """Return ``factors(dims, n)``: random factors of n samples."""

    def draw(dims: Any, n: int = 4) -> Factors:
        return Factors(torch.randn(n, *dims.anatomy), torch.randn(n, *dims.style))

    return draw
