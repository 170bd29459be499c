"""The training loop. There is one, and every stage goes through it.

A step is ``accumulate`` batches, and the ranks share them out. A batch's randomness depends on the seed, the stage, the
step and the batch's number in it alone, so a training that was killed ends, on a CPU, in the same bits as one that was
not, and more ranks change no more than the order of a sum: no state of a random generator is stored anywhere.
"""

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from anastyle import checkpoint
from anastyle.devices import accelerator_for, agreed, answering, to_device
from anastyle.engines import engine_for, trained
from anastyle.errors import AnastyleError, ConfigError, DataError, NumericalError, listing
from anastyle.interfaces import Batch
from anastyle.jsonlines import JsonLines, read_json
from anastyle.signals import Stop
from anastyle.statistics import Statistics
from anastyle.streams import seed_for
from anastyle.terms import check_reach, weighted_sum
from anastyle.training_settings import Settings

__all__ = ["Batches", "Settings", "fit"]

Batches = Callable[[int, int, int, int], Iterator[Batch]]
"""``batches(start, rank, world_size, size)``: this rank's batches of ``size`` from number ``start`` on, without end."""

PATIENCE = {"no": 3, "bf16": 3, "fp16": 30}  # steps in a row that may not be finite; fp16 finds its scale that way
SAVES = 3  # checkpoints in a row that may fail before the training does
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
        LostError: another rank is gone, or does not answer.
        SystemExit: 143 or 130 after SIGTERM or SIGINT, with a checkpoint written.
    """
    where = f"stages.{stage.name}"
    home, training = next((value.device for value in stage.parameters()), torch.device("cpu")), stage.training
    accelerator = accelerator_for(settings.precision, where)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), Stop() as stop, answering(where):
            _Training(stage, settings, accelerator, Path(folder), seed, examples, tracker, progress).run(batches, stop)
    finally:
        accelerator.free_memory()
        stage.to(home).train(training)


class _Training:
    """One training of one stage: what it knows between two steps is what a checkpoint holds."""

    def __init__(
        self, stage: nn.Module, settings: Settings, accelerator: Accelerator, folder: Path, seed: int, examples: int,
        tracker: Any, progress: Any,
    ) -> None:  # fmt: skip
        self.stage, self.settings, self.accelerator, self.folder, self.seed = stage, settings, accelerator, folder, seed
        self.tracker, self.progress, self.where = tracker, progress, f"stages.{stage.name}"
        self.total = settings.total(examples)
        self.passes, self.size = settings.shared(accelerator.num_processes)
        if not trained(stage):
            raise ConfigError(f"{self.where}: no parameter here is trained. Unfreeze a part, or drop the stage.")
        self.lines = JsonLines(folder / "metrics.jsonl")
        self.step = self.skipped = self.in_a_row = self.count = 0
        self.sums: dict[str, float] = {}  # of what is logged, over `count` steps
        self.ema: dict[str, Tensor] = {}
        self.failed_saves = 0
        self.stop = 0  # the exit code that all ranks agreed on; a wish that comes later waits for the next step
        self.checked = False
        self.images, self.clock = 0, time.perf_counter()

    def run(self, batches: Batches, stop: Stop) -> None:
        """Continue from the newest checkpoint to the last step."""
        found = self.resume()
        if self.step < self.total:
            self.begin(found)
            self.train(batches, stop)
            self.engine.finish()
            if self.accelerator.is_main_process:
                self.lines.sync()
        named = trained(self.stage)
        for name, value in self.ema.items():
            named[name].data.copy_(value)

    def begin(self, found: dict[str, Any]) -> None:
        """Put the stage on its devices, and give the optimizer what a checkpoint knew."""
        ranks = self.accelerator.num_processes
        if ranks > 1:
            self.say(f"{self.stage.name}: a step is {self.passes} x {self.size} images on each of {ranks} devices")
        self.engine = engine_for(self.stage.train(), self.settings, self.accelerator)
        self.engine.remember(found.get("optimizer", {}))
        if found:
            self.engine.scaler.load_state_dict(found["scaler"])
        if self.settings.ema:
            parameters = self.engine.parameters()
            self.ema = {name: self.ema.get(name, value).to(value.device, torch.float32, copy=True)
                        for name, value in parameters.items()}  # fmt: skip
        self.statistics = Statistics(self.engine.stage, self.passes, ranks)

    def train(self, batches: Batches, stop: Stop) -> None:
        """Take the steps that are left."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        stream = batches(self.step * self.passes, rank, ranks, self.size)
        batch, error = self.fetch(stream, self.step)
        self.agree({}, 0, stop, error)
        while self.step < self.total:
            metrics = self.descend(batch)
            keys = [key for part in batch for key in part.keys]
            batch, error = self.fetch(stream, self.step + 1)  # while the device works
            means, images = self.agree(metrics, len(keys), stop, error)
            self.update(means, keys)
            self.log(images)
            if self.step % self.settings.checkpoint_every == 0 or self.step == self.total or self.stop:
                self.save()
            if self.stop:
                self.say(f"stopped after step {self.step} of {self.total}; the same command continues from there")
                raise SystemExit(self.stop)

    def fetch(self, stream: Iterator[Batch], step: int) -> tuple[list[Batch], Exception | None]:
        """Return a step's batches on the device, or the error to raise once all ranks know of it."""
        if step >= self.total:
            return [], None
        try:
            return [to_device(next(stream), self.accelerator.device) for _ in range(self.passes)], None
        except StopIteration:
            return [], DataError(f"{self.where}: the batches ended at step {step} of {self.total}. They must not end.")
        except Exception as error:
            return [], error

    def descend(self, batch: list[Batch]) -> dict[str, Tensor]:
        """Fill the gradients; return what there is to log, scalars on the device."""
        settings, ranks = self.settings, self.accelerator
        self.engine.begin(settings.lr_at(self.step, self.total))
        metrics: dict[str, Tensor] = {}
        for number, part in enumerate(batch):
            place = number * ranks.num_processes + ranks.process_index  # in the step
            torch.manual_seed(seed_for(self.seed, str(self.stage.name), self.step, place))
            losses = self.engine.losses(part, self.step)
            loss = weighted_sum(losses, settings.weights, self.where)
            if not self.checked:
                check_reach(losses, settings.weights, list(self.engine.named.values()), self.where)
                self.checked = True
            self.engine.backward(loss / len(batch), last=number == len(batch) - 1)
            self.statistics.collect()
            for name, term in {"loss": loss, **{f"loss/{name}": term for name, term in losses.items()}}.items():
                metrics[name] = metrics.get(name, 0) + term.detach().float().reshape(()) / len(batch)
        self.statistics.settle()
        return metrics | self.engine.clip()

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
        self.stop = 143 if term else 130 if interrupt else 0
        return {name: value / ranks for name, value in zip(metrics, values, strict=True)}, round(summed)

    def update(self, metrics: dict[str, float], keys: list[str]) -> None:
        """Take the step; one that is not finite is skipped, a few times in a row.

        Raises:
            NumericalError: names what was not finite, and the samples of the last step.
        """
        scaling = self.engine.scaler.is_enabled() and math.isfinite(
            metrics["loss"]
        )  # skips by itself, finding its scale
        samples = f"samples: {', '.join(keys[:5])}" + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        if scaling or all(map(math.isfinite, metrics.values())):
            metrics = metrics | self.engine.step()
        else:
            self.engine.skip()
            self.statistics.undo()
        strange = [name for name, value in metrics.items() if not math.isfinite(value)]
        if strange and not scaling:
            self.say(f"{self.where}: step {self.step + 1} skipped, not finite: {', '.join(strange)}; {samples}")
        self.step += 1
        if not strange:
            self.in_a_row, self.count = 0, self.count + 1
            self.sums = {name: self.sums.get(name, 0.0) + value for name, value in metrics.items()}
            self.average()
            return
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= min(PATIENCE[self.settings.precision], self.total):
            raise NumericalError(
                f"{self.where}: not finite, {self.in_a_row} steps in a row, at step {self.step}: {', '.join(strange)}\n"
                f"  {samples}\n  Lower lr, set max_grad_norm, or look at these samples."
            )

    def average(self) -> None:
        """Move the average of the weights."""
        if self.ema:
            decay = min(self.settings.ema or 0.0, (1 + self.step) / (10 + self.step))
            now = self.engine.parameters()
            torch._foreach_lerp_(list(self.ema.values()), [now[name].float() for name in self.ema], 1 - decay)

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
        groups, state = self.state()
        problem = None
        if self.accelerator.is_main_process:
            try:
                self.lines.sync()
                checkpoint.save_checkpoint(self.folder, self.step, groups, state, keep=self.settings.keep_checkpoints)
            except OSError as error:
                problem = error
        if not agreed(problem is not None):
            self.failed_saves = 0
            return
        self.failed_saves += 1
        if self.failed_saves >= SAVES:
            raise AnastyleError(f"{self.folder}: cannot be written to, {SAVES} times now ({problem}).") from problem
        needed = sum(tensor.nbytes for tensors in groups.values() for tensor in tensors.values())
        room = f"{needed:,} bytes needed, {shutil.disk_usage(self.folder).free:,} free"
        self.say(f"no checkpoint at step {self.step} ({problem}; {room}). The training goes on; make room.")

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return the tensors and the rest of what a training is between two steps; alike for every engine."""
        groups = {"weights": self.engine.weights(), "optimizer": self.engine.moments(), "ema": self.ema}
        counts = {name: getattr(self, name) for name in ("skipped", "in_a_row", "count", "sums")}
        return groups, {"identity": self.identity(), "scaler": self.engine.scaler.state_dict(), **counts}

    def identity(self) -> dict[str, Any]:
        """Return what must not change while a training is under way."""
        chosen = {name: value for name, value in asdict(self.settings).items() if name not in FREE}
        return {"stage": self.stage.name, "seed": self.seed, "steps": self.total, **chosen}

    def resume(self) -> dict[str, Any]:
        """Take over the newest whole checkpoint, if there is one, and forget what was logged after it.

        Returns what is for the engine: ``optimizer`` and ``scaler``.
        """
        newest, problem = None, None
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.remove_leftovers(self.folder)
            try:
                newest = checkpoint.newest_checkpoint(self.folder, self.say)
            except DataError as error:
                problem = error
        if agreed(problem is not None):
            raise problem or DataError(f"{self.folder}: no checkpoint is whole.")
        step = agreed(0 if newest is None else int(newest.name.removeprefix("checkpoint-")))
        found = self.restore(self.folder / f"checkpoint-{step}") if step else {}
        if self.accelerator.is_main_process:
            self.lines.truncate(self.step)
            if self.step and hasattr(self.tracker, "replay"):
                self.tracker.replay(self.lines.path)
        if self.progress is not None:
            self.progress.resume(self.step)
        return found

    def restore(self, folder: Path) -> dict[str, Any]:
        """Become the training a checkpoint holds; return what is for the engine."""
        state, mine = read_json(folder / "state.json"), self.identity()
        differing = [f"{name}: {state['identity'].get(name)} there, {value} here" for name, value in mine.items()
                     if state["identity"].get(name) != value]  # fmt: skip
        if differing:
            raise ConfigError(
                f"{folder}: is of another training\n{listing(differing)}\nDelete {self.folder} to start over."
            )
        checkpoint.load_trainable_state(self.stage, checkpoint.load_tensors(folder / "weights.safetensors"))
        self.ema = checkpoint.load_tensors(folder / "ema.safetensors")
        self.step, self.sums = state["step"], state["sums"]
        self.skipped, self.in_a_row, self.count = state["skipped"], state["in_a_row"], state["count"]
        self.say(f"{self.stage.name}: continues after step {self.step} of {self.total}")
        return {"optimizer": checkpoint.load_tensors(folder / "optimizer.safetensors"), "scaler": state["scaler"]}

    def say(self, text: str) -> None:
        """Tell the person, once."""
        if not self.accelerator.is_main_process:
            return
        if self.progress is not None:
            self.progress.note(text)
        else:
            log.warning(text)
