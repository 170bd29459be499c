"""The conductor: an experiment's runs, each through its stages, each stage once.

A finished stage is found again by its fingerprint, so the variants of an ablation share what they have in common, and
the same command after a stop goes on where it was.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from anastyle.checkpoint import load_tensors, load_trainable_state, save_tensors, trainable_state, write_folder, write_json
from anastyle.config import typed
from anastyle.data.loader import batches
from anastyle.data.prepare import prepared
from anastyle.data.split import PreparedSet
from anastyle.errors import AnastyleError
from anastyle.evaluation.measure import measure
from anastyle.evaluation.study import finish_study, finished, summary
from anastyle.experiment import Experiment, Run
from anastyle.interfaces import Batch, Embedded
from anastyle.parts import Parts
from anastyle.plan import Node, nodes
from anastyle.progress import Progress
from anastyle.stages import PLANS
from anastyle.stages.generate import generate
from anastyle.stages.records import align_codes, factor_maps
from anastyle.stages.settings import schema
from anastyle.stages.training import Align, Autoencode, Diffuse, Disentangle, Stage
from anastyle.streams import seed_for
from anastyle.tracking import Study, Tracker, is_main
from anastyle.trainer import fit

CODES = 200  # captions whose codes are kept for the t-SNE


def run_experiment(experiment: Experiment, *, fresh: bool = False, dry_run: bool = False) -> int:
    """Bring every run of an experiment to its end and write the table; returns the exit code.

    Raises:
        AnastyleError: no run could be brought to its end; the first reason.
    """
    conductor = Conductor(experiment)
    if dry_run:
        print(conductor.outline())
        return 0
    if fresh:
        conductor.forget()
    return conductor.conduct()


class Conductor:
    """One experiment under way."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.store = experiment.output / "store"
        self._data: dict[str, PreparedSet] = {}
        self._plans: dict[tuple[str, int], dict[str, Node]] = {}

    def data(self, run: Run) -> PreparedSet:
        """Return the run's prepared set, preparing it on first use."""
        section = {key: value for key, value in run.config["data"].items() if key != "captions"}
        if str(section) not in self._data:
            self._data[str(section)] = prepared(run.config["data"], self.experiment.output)
        return self._data[str(section)]

    def plan(self, run: Run) -> dict[str, Node]:
        """Return the run's stages."""
        key = run.variant, run.seed
        if key not in self._plans:
            self._plans[key] = nodes(run, {"fingerprint": self.data(run).fingerprint}, self.store)
        return self._plans[key]

    def distinct(self) -> dict[str, Node]:
        """Return every different stage of the study, by fingerprint."""
        return {n.fingerprint: n for run in self.experiment.runs for n in self.plan(run).values()}

    def sized(self, left: list[Node]) -> list[tuple[Node, int]]:
        """Pair each stage with the number of training images behind it."""
        sizes = {}
        for run in self.experiment.runs:
            count = self.data(run).manifest.count("train")
            sizes.update({node.fingerprint: count for node in self.plan(run).values()})
        return [(node, sizes[node.fingerprint]) for node in left]

    def ui(self) -> str:
        """Return the command that opens the MLflow pages."""
        return f"mlflow ui --backend-store-uri sqlite:///{self.experiment.output / 'mlflow.db'}"

    def outline(self) -> str:
        """Say, run by run, which stages would be trained and which are there or shared."""
        lines, seen = [], set()
        for run in self.experiment.runs:
            words = []
            for node in self.plan(run).values():
                state = "done" if node.done else "shared" if node.fingerprint in seen else "to do"
                seen.add(node.fingerprint)
                words.append(f"{node.stage} {node.fingerprint[:8]} {state}")
            lines.append(f"{run.variant} seed {run.seed}: {', '.join(words)}")
        return "\n".join(lines)

    def forget(self) -> None:
        """Remove what earlier runs of this experiment left."""
        for node in self.distinct().values():
            for folder in (node.folder, working(node)):
                shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.experiment.folder, ignore_errors=True)

    def conduct(self) -> int:
        """Run what is not done, then write table and report."""
        began = time.monotonic()
        left = [node for node in self.distinct().values() if not node.done]
        study = Study(self.experiment.output, self.experiment.name, self.experiment.document())
        if not left and finished(self.experiment, self._plans):
            print(f"{self.experiment.name}: all {len(self.experiment.runs)} runs are finished; nothing to do.")
            print(summary(self.experiment))
            return 0
        progress = Progress(sum(weight(node, size) for node, size in self.sized(left)))
        study = Study(self.experiment.output, self.experiment.name, self.experiment.document())
        failures: list[tuple[Run, AnastyleError]] = []
        try:
            for run in self.experiment.runs:
                try:
                    self.run(run, study, progress)
                except AnastyleError as error:
                    failures.append((run, error))
                    progress.note(f"{run.variant}/s{run.seed} failed: {error}")
        finally:
            progress.close()
        if len(failures) == len(self.experiment.runs):
            raise failures[0][1]
        if is_main():
            failed = {(run.variant, run.seed) for run, _ in failures}
            plans = {key: plan for key, plan in self._plans.items() if key not in failed}
            for file in finish_study(self.experiment, plans, self.data(self.experiment.runs[0])):
                study.artifact(file)
            print(summary(self.experiment))
            print(f"{len(left)} stages in {time.monotonic() - began:.0f} s. Compare the runs: {self.ui()}")
        study.close("failed" if failures else "finished")
        return 7 if failures else 0

    def run(self, run: Run, study: Study, progress: Progress) -> None:
        """Bring one run to its end."""
        folder = self.experiment.run_folder(run)
        tracker = study.run(run.variant, run.seed, run.config)
        plan = self.plan(run)
        reused = [node.stage for node in plan.values() if node.done]
        if reused:
            progress.note(f"{run.variant}/s{run.seed}: reused {', '.join(reused)}")
        try:
            work = Work(run, self.data(run), self.experiment.output, plan, tracker, progress)
            for node in plan.values():
                if node.done:
                    tracker.replay(node.folder / "metrics.jsonl")
                else:
                    work.do(node)
        except BaseException as error:
            tracker.close("stopped" if isinstance(error, SystemExit | KeyboardInterrupt) else "failed")
            raise
        if is_main():
            write_json(folder / "stages.json", {name: node.fingerprint for name, node in plan.items()})
        tracker.close("finished")


class Work:
    """The stages of one run that are still to do."""

    def __init__(
        self, run: Run, data: PreparedSet, output: Path, plan: dict[str, Node], tracker: Tracker, progress: Progress
    ) -> None:
        self.run, self.plan, self.tracker, self.progress = run, plan, tracker, progress
        self.output = output
        self.parts = Parts(run.config, data, seed=run.seed, cache=output / "cache")
        self.device = device()
        self._loaded: set[str] = set()

    def do(self, node: Node) -> None:
        """Bring one stage to its end and store its outcome whole."""
        if PLANS[node.stage].trained:
            self.train(node)
        elif node.stage == "generate":
            self.generate(node)
        else:
            measure(node, self.plan["generate"], self.parts, self.output, self.device, self.tracker)
        barrier()

    def stage(self, name: str) -> Stage:
        """Build a stage over the run's parts; parts trained earlier are loaded and frozen."""
        parts = self.parts
        for earlier in PLANS[name].after:
            self.load(earlier)
        if name == "autoencode":
            return Autoencode(parts.autoencoder)
        if name == "disentangle":
            assert parts.encoder is not None
            return Disentangle(parts.encoder)
        if name == "align":
            return Align(parts.aligner)
        return Diffuse(parts.aligner, parts.fuser, parts.backbone, settings_of(self.plan["diffuse"]))

    def load(self, name: str) -> None:
        """Put a finished stage's weights into its parts, and freeze them."""
        node = self.plan.get(name)
        if node is None or name in self._loaded:
            return
        stage = self.stage(name)
        load_trainable_state(stage, load_tensors(node.folder / "weights.safetensors"))
        stage.requires_grad_(False).eval()
        self._loaded.add(name)

    def train(self, node: Node) -> None:
        """Train one stage, from its newest checkpoint if there is one."""
        parts, settings = self.parts, settings_of(node)
        stage = self.stage(node.stage)
        if "embedded" in stage.fields:
            parts.embed(parts.train)
        if "latent" in stage.fields:
            parts.encode_latents(parts.train, self.device)
        if "target" in stage.fields:
            parts.encode_factors(parts.train, self.plan["disentangle"].fingerprint, self.device)
        before = align_codes(parts, self.plan, CODES, self.device) if node.stage == "align" else {}

        order = seed_for(self.run.seed, "order", node.stage)

        def rows(start: int, rank: int, world: int) -> Iterator[Batch]:
            return batches(parts.train, stage.fields, batch_size=settings.batch_size, seed=order, start_step=start,
                           rank=rank, world_size=world)  # fmt: skip

        bar = self.progress.stage(self.run.variant, self.run.seed, node.stage, weight(node, len(parts.train)))
        fit(stage, rows, settings, folder=working(node), seed=self.run.seed, tracker=self.tracker, progress=bar,
            examples=len(parts.train))  # fmt: skip
        if is_main():
            with write_folder(node.folder) as folder:
                self.finish(node, stage, folder, before)
            shutil.rmtree(working(node), ignore_errors=True)
        stage.requires_grad_(False).eval()
        self._loaded.add(node.stage)

    def finish(self, node: Node, stage: Stage, folder: Path, before: dict[str, torch.Tensor]) -> None:
        """Write what a trained stage leaves behind."""
        stage.to(self.device).eval()
        if isinstance(stage, Autoencode):
            few = self.parts.train.batch(list(range(min(512, len(self.parts.train)))), ("image",))
            stage.autoencoder.calibrate(few.image.to(self.device))
        save_tensors(folder / "weights.safetensors", trainable_state(stage), {"stage": node.stage, "seed": str(self.run.seed)})
        shutil.copy(working(node) / "metrics.jsonl", folder)
        if node.stage == "align":
            after = align_codes(self.parts, self.plan, CODES, self.device)
            named = {f"before/{key}": value for key, value in before.items()} | {f"after/{k}": v for k, v in after.items()}
            save_tensors(folder / "codes.safetensors", named)
        if isinstance(stage, Disentangle):
            save_tensors(folder / "maps.safetensors", factor_maps(stage.encoder, self.parts.test, self.device))

    def generate(self, node: Node) -> None:
        """Paint the held-out captions."""
        self.load("diffuse")
        parts = self.parts
        settings = settings_of(node)
        count = min(settings.images, len(parts.test))
        parts.embed(parts.test)
        embedded = parts.test.batch(list(range(count)), ("embedded",)).embedded
        assert isinstance(embedded, Embedded)
        parts.autoencoder.to(self.device).eval()
        bar = self.progress.stage(self.run.variant, self.run.seed, "generate", count)
        if is_main():
            images = generate(
                parts.aligner, parts.fuser, parts.backbone, embedded, parts.test.keys[:count], settings,
                seed=self.run.seed, device=self.device, advance=lambda n: bar.advance(n, n),
            )  # fmt: skip
            with write_folder(node.folder) as folder:
                save_tensors(folder / "images.safetensors", {"images": images})
                (folder / "metrics.jsonl").touch()
        bar.close()


def settings_of(node: Node) -> Any:
    """Return a stage's typed settings."""
    return typed(schema(node.stage), node.settings, f"stages.{node.stage}")


def weight(node: Node, examples: int) -> int:
    """Return a stage's share of the progress bar, in steps."""
    if PLANS[node.stage].trained:
        return settings_of(node).total(examples)
    return node.settings.get("images", 0)


def working(node: Node) -> Path:
    """Return where a stage's checkpoints lie while it trains."""
    return node.folder.with_name(f"{node.folder.name}.work")


def device() -> torch.device:
    """Return this process's device."""
    return PartialState().device


def barrier() -> None:
    """Wait for every rank."""
    PartialState().wait_for_everyone()
