"""What a computation keeps in memory, counted operation by operation; on the meta device, without any memory at all."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MARGIN = 1.25  # a backward pass needs room of its own, and an allocator wastes some


class Memory(NamedTuple):
    """Bytes beyond what was there before."""

    kept: int  # once the forward pass has ended
    peak: int


def measure(forward: Callable[[], Any], *, backward: bool = False, flash: bool = False) -> Memory:
    """Return what a computation keeps while its result lives, and the most it ever holds.

    Arguments:
        forward: returns anything; a scalar loss where ``backward`` is asked for.
        flash: count attention as a fused kernel does, which stores no weights; on the meta device there is none.
    """
    with Meter() as meter, fused(flash):
        result = forward()
        kept = meter.live
        if backward:
            result.backward()
    del result
    return Memory(kept, meter.peak)


class Meter(TorchDispatchMode):
    """Counts the bytes of every tensor that is made, until it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._note(leaf, made=False)  # what was there before: parameters, inputs
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf, made=True)
        return out

    def _note(self, tensor: Tensor, *, made: bool) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes() if made else 0
        if key in self._storages:
            return

        def gone(_: Any) -> None:
            self._storages.pop(key, None)
            self.live -= size

        self._storages[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


@contextmanager
def fused(on: bool) -> Iterator[None]:
    """Let attention keep what a fused kernel keeps, in the backward pass too, where torch's function modes are off."""
    true = F.scaled_dot_product_attention
    if on:
        F.scaled_dot_product_attention = lambda query, key, value, *_, **__: _Attention.apply(query, key, value)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = true


class _Attention(torch.autograd.Function):
    """Only the shapes of attention: query, key, value, the result and one number per query are kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def free_memory(device: torch.device) -> int | None:
    """Return the bytes a GPU can still give, what this process holds in reserve included; None for anything else."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def too_much(kept: int, free: int) -> bool:
    """Say whether activations of so many bytes should be computed twice rather than kept."""
    return kept * MARGIN > free
