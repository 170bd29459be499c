"""What the tests of many ranks run under a launcher: a toy training whose batches any number of ranks can share.

python program.py FOLDER [event=STEP/RANK/SIGNAL] [slow=SECONDS] [strange=STEP] [fails=RANK] [setting=value ...]

``event``: this process sends itself a signal, once. ``strange``: this step's loss is not finite, its gradients are.
``fails``: this rank has an error of its own. ``slow``: how long the fifth step, of four batches, waits for the next.
"""

import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from anastyle import AnastyleError, Batch, DataError
from anastyle.checkpoint import save_tensors, trainable_state
from anastyle.devices import together
from anastyle.trainer import Settings, fit

STEPS = 8
SETTINGS = {"steps": STEPS, "batch_size": 4, "accumulate": 4, "lr": 0.01, "weights": {"fit": 1.0, "small": 0.5},
            "checkpoint_every": 3, "log_every": 1, "ema": 0.9, "schedule": "cosine", "warmup": 3}  # fmt: skip


class Said(NamedTuple):
    """An output that is a record, with nothing in one field."""

    values: Tensor
    nothing: None


class Normed(nn.Module):
    """Trained whole: dropout, a batch normalisation with its running statistics, a record as output."""

    def __init__(self) -> None:
        super().__init__()
        normed = nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8)
        self.layers = nn.Sequential(*normed, nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))

    def forward(self, image: Tensor) -> Said:
        return Said(self.layers(image), None)


class Toy(nn.Module):
    """A frozen layer with LoRA, a part trained whole, a parameter of its own, and noise."""

    name = "toy"

    def __init__(self, strange: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.strange = strange
        self.frozen = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4)).requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=2, target_modules=["0", "2"], lora_dropout=0.2), self.frozen)
        self.body = Normed()
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        assert batch.image is not None
        noisy = batch.image + 0.1 * torch.randn_like(batch.image)
        output = self.body(self.frozen(noisy)).values + self.bias
        fit = (output - batch.image).square().mean()
        return {"fit": fit + math.nan if step == self.strange else fit, "small": output.abs().mean()}


def endless(start: int, rank: int, world: int, size: int) -> Iterator[Batch]:
    """Yield this rank's batches; a place in the order holds the same image however many ranks there are."""
    while True:
        places = [(start * world + rank) * size + row for row in range(size)]
        images = [torch.randn(4, generator=torch.Generator().manual_seed(place)) for place in places]
        yield Batch([str(place) for place in places], torch.tensor(places), image=torch.stack(images))
        start += 1


def interrupted(batches: Iterator[Batch], at: int, number: int, once: Path) -> Iterator[Batch]:
    """Yield batches, and send this process a signal before the one after ``at``, in its first life only."""
    for count, batch in enumerate(batches):
        if count == at and not once.exists():
            once.touch()
            os.kill(os.getpid(), number)
        yield batch


def hesitant(batches: Iterator[Batch], seconds: float) -> Iterator[Batch]:
    """Yield batches, one of them late."""
    for count, batch in enumerate(batches):
        time.sleep(seconds if count == 20 else 0)
        yield batch


def main(folder: Path, words: list[str]) -> int:
    chosen: dict[str, Any] = SETTINGS | {key: yaml.safe_load(value) for key, value in (w.split("=") for w in words)}
    event, slow, strange, fails = (chosen.pop(name, None) for name in ("event", "slow", "strange", "fails"))
    logging.basicConfig(format="%(message)s")
    rank, stage = int(os.environ.get("RANK", "0")), Toy(strange)

    def batches(start: int, rank: int, world: int, size: int) -> Iterator[Batch]:
        stream = endless(start, rank, world, size)
        if slow:
            stream = hesitant(stream, slow)
        if event is not None:
            step, who, number = map(int, event.split("/"))
            passes = Settings(**chosen).shared(world)[0]
            if who == rank:
                return interrupted(stream, step * passes - start, number, folder / "struck")
        return stream

    try:
        with together():
            if rank == fails:
                raise DataError("only here")
        fit(stage, batches, Settings(**chosen), folder=folder / "work", seed=7, examples=100)
    except AnastyleError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    if rank == 0:
        save_tensors(folder / "weights.safetensors", trainable_state(stage))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
