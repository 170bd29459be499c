"""The training loop. There is one, and every stage goes through it.

A step's randomness depends on the seed, the stage, the step and the rank alone, so a training that was killed ends, on
a CPU, in the same bits as one that was not: no state of a random generator is stored anywhere.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from anastyle import checkpoint
from anastyle.devices import accelerator_for, to_device
from anastyle.errors import AnastyleError, ConfigError, DataError, NumericalError, listing
from anastyle.interfaces import Batch
from anastyle.jsonlines import JsonLines, read_json
from anastyle.signals import Stop
from anastyle.streams import seed_for
from anastyle.terms import check_reach, weighted_sum
from anastyle.training_settings import Settings

__all__ = ["Batches", "Settings", "fit"]

Batches = Callable[[int, int, int], Iterator[Batch]]
"""``batches(start, rank, world_size)``: this rank's batches from number ``start`` on, without end."""

PATIENCE = {"no": 3, "bf16": 3, "fp16": 30}  # steps in a row that may not be finite; fp16 finds its scale that way
SAVES = 3  # checkpoints in a row that may fail before the training does
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
DTYPES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
FREE = {"steps", "epochs", "checkpoint_every", "keep_checkpoints", "log_every"}  # may differ when a training continues

log = logging.getLogger("anastyle")


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
        ConfigError: loss terms and weights that do not match, a folder of another training.
        NumericalError: a weighted term that reaches no parameter; losses that stay not finite.
        DataError: the batches ended, or no checkpoint is whole.
        SystemExit: 143 or 130 after SIGTERM or SIGINT, with a checkpoint written.
    """
    where = f"stages.{stage.name}"
    home, training = next((value.device for value in stage.parameters()), torch.device("cpu")), stage.training
    accelerator = accelerator_for(settings.precision, where)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), Stop() as stop:
            _Training(stage, settings, accelerator, Path(folder), seed, examples, tracker, progress).run(batches, stop)
    finally:
        accelerator.free_memory()
        vars(stage).pop("_is_accelerate_prepared", None)  # or a second training would not be prepared
        stage.to(home).train(training)


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
            raise ConfigError(f"{self.where}: no parameter here is trained. Unfreeze a part, or drop the stage.")
        self.model = accelerator.prepare(stage.train())
        self.optimizer = OPTIMIZERS[settings.optimizer](
            self.named.values(), settings.lr, betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay, fused=accelerator.device.type == "cuda",
        )  # fmt: skip
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=settings.precision == "fp16")
        self.ema = {name: value.detach().float().clone() for name, value in self.named.items()} if settings.ema else {}
        self.lines = JsonLines(folder / "metrics.jsonl")
        self.step = self.skipped = self.in_a_row = self.count = 0
        self.sums: dict[str, float] = {}  # of what is logged, over `count` steps
        self.failed_saves = 0
        self.checked = False
        self.images, self.clock = 0, time.perf_counter()

    def run(self, batches: Batches, stop: Stop) -> None:
        """Continue from the newest checkpoint to the last step."""
        self.resume()
        stream: Iterator[Batch] = iter(())
        if self.step < self.total:
            ranks = self.accelerator
            stream = batches(self.step * self.settings.accumulate, ranks.process_index, ranks.num_processes)
        batch, error = self.fetch(stream, self.step)
        self.agree({}, 0, stop, error)
        while self.step < self.total:
            metrics = self.descend(batch)
            keys = [key for part in batch for key in part.keys]
            batch, error = self.fetch(stream, self.step + 1)  # while the device works
            means, images = self.agree(metrics, len(keys), stop, error)
            self.update(means, keys)
            self.log(images)
            if self.step % self.settings.checkpoint_every == 0 or self.step == self.total or stop.code:
                self.save()
            if stop.code:
                self.say(f"stopped after step {self.step} of {self.total}; the same command continues from there")
                raise SystemExit(stop.code)
        for name, value in self.ema.items():
            self.named[name].data.copy_(value)

    def fetch(self, stream: Iterator[Batch], step: int) -> tuple[list[Batch], Exception | None]:
        """Return a step's batches on the device, or the error to raise once all ranks know of it."""
        if step >= self.total:
            return [], None
        try:
            return [to_device(next(stream), self.accelerator.device) for _ in range(self.settings.accumulate)], None
        except StopIteration:
            return [], DataError(f"{self.where}: the batches ended at step {step} of {self.total}. They must not end.")
        except Exception as error:
            return [], error

    def descend(self, batch: list[Batch]) -> dict[str, Tensor]:
        """Fill the gradients; return what there is to log, scalars on the device."""
        settings, device, dtype = self.settings, self.accelerator.device, DTYPES[self.settings.precision]
        torch.manual_seed(seed_for(self.seed, str(self.stage.name), self.step, self.accelerator.process_index))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(self.step, self.total)
        self.optimizer.zero_grad(set_to_none=True)
        metrics: dict[str, Tensor] = {}
        for number, part in enumerate(batch, start=1):
            with nullcontext() if number == len(batch) else self.accelerator.no_sync(self.model):
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    losses = self.model(part, self.step)
                loss = weighted_sum(losses, settings.weights, self.where)
                if not self.checked:
                    check_reach(losses, settings.weights, list(self.named.values()), self.where)
                    self.checked = True
                self.scaler.scale(loss / len(batch)).backward()
            for name, term in {"loss": loss, **{f"loss/{name}": term for name, term in losses.items()}}.items():
                metrics[name] = metrics.get(name, 0) + term.detach().float().reshape(()) / len(batch)
        self.scaler.unscale_(self.optimizer)
        metrics["grad_norm"] = nn.utils.clip_grad_norm_(self.named.values(), settings.max_grad_norm or math.inf)
        return metrics

    def agree(
        self, metrics: dict[str, Tensor], images: int, stop: Stop, error: Exception | None
    ) -> tuple[dict[str, float], int]:
        """Return metrics averaged and images summed over the ranks; if one must stop, all do."""
        device, ranks = self.accelerator.device, self.accelerator.num_processes
        flags = [images, stop.code == 143, stop.code == 130, error is not None]
        report = torch.cat([torch.tensor(flags, dtype=torch.float32).to(device), *(v[None] for v in metrics.values())])
        if ranks > 1:
            torch.distributed.all_reduce(report)
        summed, term, interrupt, failed, *values = report.tolist()
        if failed:
            raise error or AnastyleError(f"{self.where}: stopped at step {self.step}, because another rank failed.")
        stop.code = 143 if term else 130 if interrupt else 0
        return {name: value / ranks for name, value in zip(metrics, values, strict=True)}, round(summed)

    def update(self, metrics: dict[str, float], keys: list[str]) -> None:
        """Take the step; one that is not finite is skipped, a few times in a row.

        Raises:
            NumericalError: names what was not finite, and the samples of the last step.
        """
        strange = [name for name, value in metrics.items() if not math.isfinite(value)]
        if not strange or (self.scaler.is_enabled() and math.isfinite(metrics["loss"])):
            self.scaler.step(self.optimizer)  # the scaler itself skips gradients that its scale made infinite
        self.scaler.update()
        self.step += 1
        if not strange:
            self.in_a_row, self.count = 0, self.count + 1
            self.sums = {name: self.sums.get(name, 0.0) + value for name, value in metrics.items()}
            self.average()
            return
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= min(PATIENCE[self.settings.precision], self.total):
            shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
            raise NumericalError(
                f"{self.where}: not finite, {self.in_a_row} steps in a row, at step {self.step}: {', '.join(strange)}\n"
                f"  samples: {shown}\n  Lower lr, set max_grad_norm, or look at these samples."
            )

    def average(self) -> None:
        """Move the average of the weights."""
        if self.ema:
            decay = min(self.settings.ema or 0.0, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.ema.values()), [v.detach().float() for v in self.named.values()], 1 - decay)

    def log(self, images: int) -> None:
        """Write the mean of the steps since the last line, every few steps."""
        self.images += images
        if self.progress is not None:
            self.progress.advance(1, images)
        if self.step % self.settings.log_every and self.step not in (1, self.total):
            return
        name, now = self.stage.name, time.perf_counter()
        line = {f"train/{name}/{key}": value / self.count for key, value in self.sums.items()}
        line[f"train/{name}/lr"] = self.settings.lr_at(self.step - 1, self.total)
        if self.skipped:
            line[f"train/{name}/skipped"] = self.skipped
        line[f"perf/{name}/images_per_s"] = self.images / max(now - self.clock, 1e-9)
        self.sums, self.count, self.images, self.clock = {}, 0, 0, now
        if self.accelerator.is_main_process:
            self.lines.append({"step": self.step, "time": round(time.time() * 1000), **line})
            if self.tracker is not None:
                self.tracker.log(line, self.step)

    def save(self) -> None:
        """Write a checkpoint; a full disk is worth a warning, and only the third time in a row an error."""
        if self.accelerator.is_main_process:
            try:
                self.lines.sync()
                checkpoint.save_checkpoint(self.folder, self.step, *self.state(), keep=self.settings.keep_checkpoints)
                self.failed_saves = 0
            except OSError as error:
                self.failed_saves += 1
                if self.failed_saves >= SAVES:
                    raise AnastyleError(f"{self.folder}: cannot be written to, {SAVES} times now ({error}).") from error
                self.say(f"no checkpoint at step {self.step} ({error}). The training goes on; make room.")
        self.accelerator.wait_for_everyone()

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return the tensors and the rest of what a training is between two steps."""
        moments = checkpoint.optimizer_state(self.optimizer, list(self.named))
        groups = {"weights": checkpoint.trainable_state(self.stage), "optimizer": moments, "ema": self.ema}
        counts = {name: getattr(self, name) for name in ("skipped", "in_a_row", "count", "sums")}
        return groups, {"identity": self.identity(), "scaler": self.scaler.state_dict(), **counts}

    def identity(self) -> dict[str, Any]:
        """Return what must not change while a training is under way."""
        chosen = {name: value for name, value in asdict(self.settings).items() if name not in FREE}
        return {"stage": self.stage.name, "seed": self.seed, "steps": self.total, **chosen}

    def resume(self) -> None:
        """Take over the newest whole checkpoint, if there is one, and forget what was logged after it."""
        found: list[str | None] = [None]
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.remove_leftovers(self.folder)
            newest = checkpoint.newest_checkpoint(self.folder, self.say)
            found = [newest.name if newest else None]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(found)
        if found[0] is not None:
            self.restore(self.folder / found[0])
        if self.accelerator.is_main_process:
            self.lines.truncate(self.step)
            if self.step and hasattr(self.tracker, "replay"):
                self.tracker.replay(self.lines.path)
        if self.progress is not None:
            self.progress.resume(self.step)

    def restore(self, folder: Path) -> None:
        """Become the training a checkpoint holds."""
        state, mine = read_json(folder / "state.json"), self.identity()
        differing = [f"{name}: {state['identity'].get(name)} there, {value} here" for name, value in mine.items()
                     if state["identity"].get(name) != value]  # fmt: skip
        if differing:
            raise ConfigError(
                f"{folder}: is of another training\n{listing(differing)}\nDelete {self.folder} to start over."
            )
        checkpoint.load_trainable_state(self.stage, checkpoint.load_tensors(folder / "weights.safetensors"))
        moments = checkpoint.load_tensors(folder / "optimizer.safetensors")
        checkpoint.load_optimizer_state(self.optimizer, list(self.named), moments)
        for name, value in checkpoint.load_tensors(folder / "ema.safetensors").items():
            self.ema[name].copy_(value)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.sums = state["step"], state["sums"]
        self.skipped, self.in_a_row, self.count = state["skipped"], state["in_a_row"], state["count"]
        self.say(f"{self.stage.name}: continues after step {self.step} of {self.total}")

    def say(self, text: str) -> None:
        """Tell the person, once."""
        if not self.accelerator.is_main_process:
            return
        if self.progress is not None:
            self.progress.note(text)
        else:
            log.warning(text)
