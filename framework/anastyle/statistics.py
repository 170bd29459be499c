"""Buffers that a forward pass moves, such as the running statistics of a batch normalisation."""

import torch
from torch import Tensor, nn

from anastyle.checkpoint import trainable_state


class Statistics:
    """Moves a stage's buffers once a step, to the mean of where each batch of the step alone would have moved them.

    So they are the same however many devices share the batches of a step; and a step can be undone.
    """

    def __init__(self, stage: nn.Module, batches: int, ranks: int) -> None:
        self.batches, self.ranks = batches, ranks
        learned = dict(stage.named_parameters())
        self.buffers = {name: value for name, value in trainable_state(stage).items() if name not in learned}
        self.settled = False  # are only those left that move?
        self.before: dict[str, Tensor] = {}
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
        self.before = self.start
        if self.buffers:
            flat = torch.cat([value.flatten() for value in self.sums.values()])
            if self.ranks > 1:
                torch.distributed.all_reduce(flat)
            means = flat.div_(self.batches * self.ranks).split([v.numel() for v in self.buffers.values()])
            for value, mean in zip(self.buffers.values(), means, strict=True):
                value.copy_(place(mean, value))
            if not self.settled:
                self.buffers = {name: value for name, value in self.buffers.items()
                                if not torch.equal(value, self.start[name])}  # fmt: skip
                self.settled = True
        self.begin()

    def undo(self) -> None:
        """Put the buffers back to where the last step found them."""
        for name, value in self.buffers.items():
            value.copy_(self.before[name])
        self.begin()


def place(mean: Tensor, like: Tensor) -> Tensor:
    """Return a mean in a buffer's shape and type; counts are rounded."""
    return (mean if like.is_floating_point() else mean.round()).view_as(like).to(like.dtype)
