"""Buffers that a forward pass moves, such as the running statistics of a batch normalisation."""

import torch
from torch import Tensor, nn

from anastyle.checkpoint import trainable_state


class Statistics:
    """Moves a stage's buffers once a step, to the mean of where each batch of the step alone would have moved them.

    So they are the same however many devices share the batches of a step. Where a step is one batch on one device,
    nothing is done.
    """

    def __init__(self, stage: nn.Module, batches: int, ranks: int) -> None:
        self.batches, self.ranks = batches, ranks
        learned = dict(stage.named_parameters())
        state = trainable_state(stage) if batches * ranks > 1 else {}
        self.buffers = {name: value for name, value in state.items() if name not in learned}
        self.settled = False  # are only those left that move?
        self.begin()

    def begin(self) -> None:
        """Remember where a step begins."""
        self.start = {name: value.clone() for name, value in self.buffers.items()}
        self.sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in self.buffers.items()}

    def collect(self) -> None:
        """Take what a batch moved, and put it back for the next."""
        for name, value in self.buffers.items():
            self.sums[name] += value
            value.copy_(self.start[name])

    def settle(self) -> None:
        """Move the buffers, alike on all ranks, and begin the next step."""
        if self.buffers:
            flat = torch.cat([value.flatten() for value in self.sums.values()])
            if self.ranks > 1:
                torch.distributed.all_reduce(flat)
            means = flat.div_(self.batches * self.ranks).split([v.numel() for v in self.buffers.values()])
            moved = {name: place(mean, self.start[name]) for name, mean in zip(self.buffers, means, strict=True)}
            for name, value in moved.items():
                self.buffers[name].copy_(value)
            if not self.settled:
                still = [name for name, value in moved.items() if torch.equal(value, self.start[name])]
                self.buffers = {name: value for name, value in self.buffers.items() if name not in still}
                self.settled = True
        self.begin()


def place(mean: Tensor, like: Tensor) -> Tensor:
    """Return a mean in a buffer's shape and type; counts are rounded."""
    return (mean if like.is_floating_point() else mean.round()).view_as(like).to(like.dtype)
