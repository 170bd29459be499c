"""The training loop. There is one, and every stage goes through it.

A step's randomness depends on the seed, the stage, the step and the rank alone, so a training that was killed continues,
on a CPU, to the same bits: no state of a random generator is stored anywhere.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, GradientAccumulationPlugin
from torch import Tensor, nn

from anastyle import checkpoint
from anastyle.errors import AnastyleError, ConfigError, DataError, NumericalError, did_you_mean, listing
from anastyle.interfaces import Batch, Losses
from anastyle.jsonlines import JsonLines, read_json
from anastyle.signals import Stop
from anastyle.streams import seed_for

Batches = Callable[[int, int, int], Iterator[Batch]]
"""``batches(start, rank, world_size)``: this rank's batches from number ``start`` on, without end."""

PATIENCE = {"no": 3, "bf16": 3, "fp16": 30}  # steps in a row that may not be finite; fp16 looks for its scale that way
SAVES = 3  # checkpoints in a row that may fail before the training does
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
SCHEDULES = ("constant", "cosine")
DTYPES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Settings:
    """How a stage is trained. A step is one update of the weights."""

    steps: int = 1000
    epochs: float | None = None
    """Passes over the examples; then ``steps`` follows from it."""
    batch_size: int = 32
    """Images per device and pass; the update averages over ``batch_size * accumulate * devices``."""
    lr: float = 1e-4
    optimizer: str = "adamw"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    schedule: str = "constant"
    """``constant`` or ``cosine`` (down to 0), after the warmup."""
    warmup: int = 0
    """Steps of linear warmup."""
    max_grad_norm: float | None = 1.0
    ema: float | None = None
    """Decay of an average of the weights, which is then what the stage ends with. Grows as (1 + t) / (10 + t)."""
    precision: str = "no"
    """``no``, ``bf16`` or ``fp16``."""
    accumulate: int = 1
    """Batches per step."""
    weights: dict[str, float] = field(default_factory=dict)
    """The weight of each loss term."""
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    log_every: int = 10

    def check(self, where: str) -> None:
        """Refuse what cannot be trained with.

        Raises:
            ConfigError: lists every option that is out of range.
        """
        least = {"steps": 0, "batch_size": 1, "accumulate": 1, "warmup": 0, "weight_decay": 0, "checkpoint_every": 1,
                 "keep_checkpoints": 1, "log_every": 1}  # fmt: skip
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": DTYPES}
        problems = [f"{name}: {getattr(self, name)} is less than {low}" for name, low in least.items()
                    if getattr(self, name) < low]  # fmt: skip
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                problems.append(f"{name}: '{value}' is none of {', '.join(known)}.{did_you_mean(value, known)}")
        rules = {
            f"lr: {self.lr} is not above 0": self.lr > 0,
            f"epochs: {self.epochs} is not above 0": self.epochs is None or self.epochs > 0,
            f"ema: {self.ema} is not between 0 and 1": self.ema is None or 0 < self.ema < 1,
            f"max_grad_norm: {self.max_grad_norm} is not above 0": self.max_grad_norm is None or self.max_grad_norm > 0,
            f"betas: {self.betas} are not two numbers in [0, 1)": len(self.betas) == 2
            and all(0 <= beta < 1 for beta in self.betas),
        }
        problems += [problem for problem, holds in rules.items() if not holds]
        if problems:
            raise ConfigError(f"{where}: cannot train with this\n{listing(problems)}")

    def total(self, examples: int, world_size: int = 1) -> int:
        """Return the number of steps, given how many examples there are."""
        if self.epochs is None:
            return self.steps
        return math.ceil(self.epochs * examples / (self.batch_size * self.accumulate * world_size))

    def lr_at(self, step: int, total: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * (step - self.warmup) / max(total - self.warmup, 1))) / 2


def fit(
    stage: nn.Module, batches: Batches, settings: Settings, *, folder: Path, seed: int, examples: int,
    tracker: Any = None, progress: Any = None,
) -> None:  # fmt: skip
    """Train a stage, or continue to, and leave it with its final weights, in the mode and on the device it came with.

    Arguments:
        stage: has a ``name`` and returns named scalar losses for ``stage(batch, step)``. What of it requires gradients
            is trained, all of it in every step.
        folder: where checkpoints and ``metrics.jsonl`` go, and from where a training continues.
        examples: how many examples there are, for ``settings.epochs``.
        tracker: has ``log(metrics, step)``, and ``replay(path)`` if it wants what an earlier process had logged.
        progress: has ``resume(done)``, ``advance(steps, images)`` and ``note(text)``.

    Raises:
        ConfigError: settings out of range, loss terms and weights that do not match, a folder of another training.
        NumericalError: a weighted term that reaches no parameter; losses that stay not finite.
        DataError: the batches ended, or no checkpoint is whole.
        SystemExit: 143 or 130 after SIGTERM or SIGINT, with a checkpoint written.
    """
    where = f"stages.{stage.name}"
    settings.check(where)
    home, training = _device(stage), stage.training
    accelerator = Accelerator(
        mixed_precision="no",  # autocast is ours: accelerate's cannot change from one stage to the next
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise ConfigError(f"{where}: trains on one or more devices as copies, not as {accelerator.distributed_type.value}")
    if settings.precision == "fp16" and accelerator.device.type != "cuda":
        raise ConfigError(f"{where}.precision: fp16 needs a GPU. Use bf16 or no.")
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), Stop() as stop:
            _Training(stage, settings, accelerator, Path(folder), seed, examples, tracker, progress).run(batches, stop)
    finally:
        accelerator.free_memory()
        stage.to(home).train(training)


def weighted_sum(losses: Losses, weights: dict[str, float], where: str) -> Tensor:
    """Return the sum of the terms, each times its weight; float32.

    Raises:
        ConfigError: a term without a weight, a weight without a term, a term that is no scalar.
    """
    problems = [f"weights: the term '{name}' has no weight" for name in losses if name not in weights]
    problems += [f"weights.{name}: there is no such term.{did_you_mean(name, losses)}" for name in weights
                 if name not in losses]  # fmt: skip
    problems += [f"the term '{name}' is no scalar but {tuple(term.shape)}" for name, term in losses.items()
                 if term.numel() != 1]  # fmt: skip
    if problems:
        raise ConfigError(f"{where}: weights and terms differ\n{listing(problems)}\n  terms: {', '.join(losses)}")
    return torch.stack([weights[name] * term.float().reshape(()) for name, term in losses.items()]).sum()


def check_reach(losses: Losses, weights: dict[str, float], parameters: list[nn.Parameter], where: str) -> None:
    """Refuse a weighted term from which no gradient can reach any of the parameters.

    Raises:
        NumericalError: names every such term.
    """
    trained = {id(parameter) for parameter in parameters}
    idle = [name for name, term in losses.items() if weights[name] and not _reaches(term, trained)]
    if idle:
        problems = [f"weights.{name}: {weights[name]}, but the term '{name}' reaches no parameter" for name in idle]
        raise NumericalError(f"{where}: a term that trains nothing\n{listing(problems)}\n  Set its weight to 0.")


def _reaches(term: Tensor, trained: set[int]) -> bool:
    todo, seen = [term.grad_fn], set()
    if term.grad_fn is None:
        return id(term) in trained
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if id(getattr(node, "variable", None)) in trained or "CheckpointFunction" in type(node).__name__:
            return True  # a reentrant checkpoint hides its parameters
        todo += [parent for parent, _ in node.next_functions]
    return False


class _Training:
    """One training of one stage: what it knows between two steps is what a checkpoint holds."""

    def __init__(
        self, stage: nn.Module, settings: Settings, accelerator: Accelerator, folder: Path, seed: int, examples: int,
        tracker: Any, progress: Any,
    ) -> None:  # fmt: skip
        self.stage, self.settings, self.accelerator, self.folder, self.seed = stage, settings, accelerator, folder, seed
        self.tracker, self.progress, self.where = tracker, progress, f"stages.{stage.name}"
        self.total = settings.total(examples, accelerator.num_processes)
        self.named = {name: value for name, value in stage.named_parameters() if value.requires_grad}
        if not self.named:
            raise ConfigError(f"{self.where}: no parameter of this stage is trained. Set the stage to null, or unfreeze.")
        stage.train()
        kind = OPTIMIZERS[settings.optimizer]
        self.optimizer = kind(self.parameters, lr=settings.lr, betas=tuple(settings.betas),  # type: ignore[arg-type]
                              weight_decay=settings.weight_decay)  # fmt: skip
        self.model, _ = accelerator.prepare(stage, self.optimizer)
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=settings.precision == "fp16")
        self.ema = {name: value.detach().float().clone() for name, value in self.named.items()} if settings.ema else {}
        self.lines = JsonLines(folder / "metrics.jsonl")
        self.step = self.saved = self.count = self.skipped = self.in_a_row = self.failed_saves = 0
        self.sums: dict[str, float] = {}  # of what is logged, over `count` steps
        self.images, self.clock = 0, time.perf_counter()

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.named.values())

    def run(self, batches: Batches, stop: Stop) -> None:
        """Continue from the newest checkpoint to the last step."""
        self.resume()
        ranks = self.accelerator
        stream = iter(())
        if self.step < self.total:
            stream = batches(self.step * self.settings.accumulate, ranks.process_index, ranks.num_processes)
        batch, error = self.fetch(stream)
        self.agree({}, 0, stop, error)
        while self.step < self.total:
            assert batch is not None
            metrics, images = self.descend(batch), sum(len(part.keys) for part in batch)
            keys = [key for part in batch for key in part.keys]
            batch, error = self.fetch(stream) if self.step + 1 < self.total else (None, None)  # while the device works
            means, images = self.agree(metrics, images, stop, error)
            self.update(means, images, keys)
            self.log()
            if self.step % self.settings.checkpoint_every == 0 or self.step == self.total:
                self.save()
            if stop.code and self.step < self.total:
                self.leave(stop.code)
        if self.settings.ema:
            with torch.no_grad():
                for name, value in self.named.items():
                    value.copy_(self.ema[name])

    def fetch(self, stream: Iterator[Batch]) -> tuple[list[Batch] | None, Exception | None]:
        """Return a step's batches on the device, or the error to raise once all ranks know of it."""
        if self.step >= self.total:
            return None, None
        try:
            return [to_device(next(stream), self.accelerator.device) for _ in range(self.settings.accumulate)], None
        except StopIteration:
            return None, DataError(f"{self.where}: the batches ended before step {self.total}. They must not end.")
        except Exception as error:
            return None, error

    def descend(self, batch: list[Batch]) -> dict[str, Tensor]:
        """Fill the gradients; return what there is to log, scalars on the device."""
        settings, device = self.settings, self.accelerator.device
        torch.manual_seed(seed_for(self.seed, self.stage.name, self.step, self.accelerator.process_index))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(self.step, self.total)
        self.optimizer.zero_grad(set_to_none=True)
        dtype = DTYPES[settings.precision]
        metrics: dict[str, Tensor] = {}
        for number, part in enumerate(batch, start=1):
            with nullcontext() if number == len(batch) else self.accelerator.no_sync(self.model):
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    losses = self.model(part, self.step)
                loss = weighted_sum(losses, settings.weights, self.where)
                if self.saved == self.count == self.skipped == 0 and number == 1:
                    check_reach(losses, settings.weights, self.parameters, self.where)
                self.scaler.scale(loss / len(batch)).backward()
            for name, term in {"loss": loss, **{f"loss/{name}": term for name, term in losses.items()}}.items():
                metrics[name] = metrics.get(name, 0) + term.detach().double().reshape(()) / len(batch)
        self.scaler.unscale_(self.optimizer)
        metrics["grad_norm"] = nn.utils.clip_grad_norm_(self.parameters, settings.max_grad_norm or math.inf).double()
        return metrics

    def agree(
        self, metrics: dict[str, Tensor], images: int, stop: Stop, error: Exception | None
    ) -> tuple[dict[str, float], int]:
        """Return metrics averaged and images summed over the ranks; stop all of them if one must stop."""
        device = self.accelerator.device
        flags = torch.tensor([images, stop.code == 143, stop.code == 130, error is not None], dtype=torch.float64)
        report = torch.cat([flags.to(device), *(value.reshape(1) for value in metrics.values())])
        if self.accelerator.num_processes > 1:
            report = self.accelerator.reduce(report, "sum")
        total, term, interrupt, failed, *values = report.tolist()
        if failed:
            raise error or AnastyleError(f"{self.where}: stopped at step {self.step}, because another rank failed.")
        stop.code = 143 if term else 130 if interrupt else 0
        ranks = self.accelerator.num_processes
        return {name: value / ranks for name, value in zip(metrics, values, strict=True)}, int(total)

    def update(self, metrics: dict[str, float], images: int, keys: list[str]) -> None:
        """Take the step, unless it is not finite; then skip it, a few times."""
        watched = metrics if self.settings.precision != "fp16" else {"loss": metrics["loss"]}
        strange = [name for name, value in watched.items() if not math.isfinite(value)]
        if not strange:
            self.scaler.step(self.optimizer)
            self.average()
        self.scaler.update()
        self.step += 1
        if not all(math.isfinite(value) for value in metrics.values()):
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            self.give_up([name for name, value in metrics.items() if not math.isfinite(value)], keys)
        else:
            self.in_a_row, self.count = 0, self.count + 1
            for name, value in metrics.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
        self.images += images
        if self.progress is not None:
            self.progress.advance(1, images)
