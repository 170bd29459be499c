"""The stages of one run that are still to do, each over the parts it shares with the others."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from anastyle.accounting.painted import cost
from anastyle.checkpoint import (
    load_tensors,
    load_trainable_state,
    refuse_damaged,
    remove_folder,
    save_tensors,
    trainable_state,
    write_folder,
)
from anastyle.config import typed
from anastyle.data.loader import batches
from anastyle.data.split import PreparedSet, Split
from anastyle.devices import device, together
from anastyle.evaluation.measure import measure
from anastyle.evaluation.validation import FEWEST, TOO_FEW, Held, validate
from anastyle.experiment import Run
from anastyle.interfaces import Batch, Embedded
from anastyle.jsonlines import write_json, write_line
from anastyle.painting.chain import Reader
from anastyle.painting.origin import write_origin
from anastyle.parts import Parts
from anastyle.plan import Node, settings_of, weight, working
from anastyle.progress import Progress
from anastyle.settings import EvaluateSettings, GenerateSettings, ValidateSettings
from anastyle.shortage import memory_explained
from anastyle.speaker import is_main
from anastyle.stages import PLANS
from anastyle.stages.choice import Choice, logged, painted_with
from anastyle.stages.generate import generate
from anastyle.stages.records import align_codes, factor_maps
from anastyle.stages.swaps import Swapped, pairs, swap
from anastyle.stages.training import Align, Autoencode, Diffuse, Disentangle, Stage
from anastyle.streams import seed_for
from anastyle.tracking import Tracker
from anastyle.trainer import fit

CODES = 2000  # held-out images whose codes, and whose captions', are kept


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
        with together(), memory_explained(node.stage, node.settings, self.device):
            if PLANS[node.stage].trained:
                self.train(node)
            elif node.stage == "validate":
                self.validate(node)
            elif node.stage == "generate":
                self.generate(node)
            else:
                self.load("autoencode")  # what a ceiling is measured behind
                measure(node, self.plan, self.parts, self.output, self.device, self.tracker)

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
        refuse_damaged(node.folder)
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
        before = self.codes() if node.stage == "align" else {}

        order = seed_for(self.run.seed, "order", node.stage)
        wanted = [field for field in stage.fields if field != "mask" or parts.train.has_masks]

        def rows(start: int, rank: int, world: int, size: int) -> Iterator[Batch]:
            return batches(parts.train, wanted, batch_size=size, seed=order, start_step=start,
                           rank=rank, world_size=world)  # fmt: skip

        bar = self.progress.stage(self.run.variant, self.run.seed, node.stage, weight(node, len(parts.train)))
        fit(stage, rows, settings, folder=working(node), seed=self.run.seed, tracker=self.tracker, progress=bar,
            examples=len(parts.train))  # fmt: skip
        if is_main():
            with write_folder(node.folder) as folder:
                self.finish(node, stage, folder, before)
            remove_folder(working(node))
        stage.requires_grad_(False).eval()
        self._loaded.add(node.stage)

    def finish(self, node: Node, stage: Stage, folder: Path, before: dict[str, torch.Tensor]) -> None:
        """Write what a trained stage leaves behind."""
        stage.to(self.device).eval()
        if isinstance(stage, Autoencode):
            few = self.parts.train.batch(list(range(min(512, len(self.parts.train)))), ("image",))
            assert few.image is not None
            stage.autoencoder.calibrate(few.image.to(self.device))
        about = {"stage": node.stage, "seed": str(self.run.seed)}
        save_tensors(folder / "weights.safetensors", trainable_state(stage), about)
        shutil.copy(working(node) / "metrics.jsonl", folder)
        if node.stage == "align":
            both = {"before": before, "after": self.codes()}
            named = {f"{when}/{name}": code for when, codes in both.items() for name, code in codes.items()}
            save_tensors(folder / "codes.safetensors", named)
        if isinstance(stage, Diffuse):
            write_origin(folder, self.parts)
        if isinstance(stage, Disentangle):
            save_tensors(folder / "maps.safetensors", factor_maps(stage.encoder, self.parts.test, self.device))

    def codes(self) -> dict[str, torch.Tensor]:
        """Return visual and textual codes of held-out images, as they are now."""
        return align_codes(self.parts, self.plan["disentangle"].fingerprint, CODES, self.device)

    def painter(self) -> None:
        """Make the parts ready to paint: trained, or where no diffuse stage trains them, as they are built."""
        for earlier in ("diffuse",) if "diffuse" in self.plan else PLANS["diffuse"].after:
            self.load(earlier)

    def validate(self, node: Node) -> None:
        """Choose guidance and sampling steps on validation captions, and look what training has added to the start."""
        settings, own = settings_of(node), self.painting()
        count = min(settings.images, len(self.parts.validation or ()))
        bar = self.progress.stage(self.run.variant, self.run.seed, "validate", weight(node, 0))
        if count < FEWEST:
            choice = Choice(own.guidance, own.steps, note=TOO_FEW)
        elif is_main():
            choice = self.chosen(settings, own, count, lambda n: bar.advance(n, n))
        if is_main():
            with write_folder(node.folder) as folder:
                choice.write(folder)
                write_line(folder / "metrics.jsonl", logged(choice))
            self.tracker.replay(node.folder / "metrics.jsonl")
            for said in filter(None, (choice.words, choice.warning)):
                self.progress.note(f"{self.run.variant}/s{self.run.seed}: {said}")
        bar.close()

    def chosen(
        self, settings: ValidateSettings, own: GenerateSettings, count: int, advance: Callable[[int], None]
    ) -> Choice:
        """Paint the first validation captions with every candidate, and before anything was trained."""
        self.painter()
        parts, split = self.parts, self.parts.held_out("validation")
        embedded, keys = self.embedded(split, count), split.keys[:count]
        asked = parts.data.split("validation", image_size=parts.image_size).subset(list(range(count)))
        measuring = self.run.config["stages"].get("evaluate") or {}
        held = Held(typed(EvaluateSettings, measuring, "stages.evaluate"), parts, asked, self.output, self.device)

        def paint(work: "Work", how: GenerateSettings) -> torch.Tensor:
            of = work.parts
            return generate(of.aligner, of.fuser, of.backbone, embedded, keys, how, seed=self.run.seed,
                            device=self.device, stream="validate", advance=advance)["images"]  # fmt: skip

        start = partial(paint, self.untrained()) if settings.start and "diffuse" in self.plan else None
        return validate(partial(paint, self), held.criterion(settings.criterion), count, own, settings, start)

    def untrained(self) -> "Work":
        """Return this run before its diffuse stage, ready to paint."""
        before = {name: node for name, node in self.plan.items() if name != "diffuse"}
        start = Work(self.run, self.parts.data, self.output, before, self.tracker, self.progress)
        start.parts = self.parts.untrained()
        start.painter()
        return start

    def painting(self) -> GenerateSettings:
        """Return how held-out captions are painted: as the file says, or as a validate stage has chosen."""
        settings = typed(GenerateSettings, self.run.config["stages"]["generate"], "stages.generate")
        node = self.plan.get("validate")
        return painted_with(settings, node.folder) if node is not None and node.done else settings

    def embedded(self, split: Split, count: int) -> Embedded:
        """Return the embeddings of a split's first captions, the autoencoder ready to decode what they paint."""
        self.parts.embed(split)
        self.parts.autoencoder.to(self.device).eval()
        found = split.batch(list(range(count)), ("embedded",)).embedded
        assert isinstance(found, Embedded)
        return found

    def generate(self, node: Node) -> None:
        """Paint the held-out captions."""
        self.painter()
        parts, settings = self.parts, self.painting()
        split = parts.held_out(settings.split)
        count = min(settings.images, len(split))
        embedded = self.embedded(split, count)
        bar = self.progress.stage(self.run.variant, self.run.seed, "generate", count)
        if is_main():
            started = time.perf_counter()
            painted = generate(
                parts.aligner, parts.fuser, parts.backbone, embedded, split.keys[:count], settings,
                seed=self.run.seed, device=self.device, advance=lambda n: bar.advance(n, n),
            )  # fmt: skip
            taken = cost(parts, embedded, settings, (time.perf_counter() - started) / count, self.device)
            swapped = self.swapped(split, settings)
            with write_folder(node.folder) as folder:
                save_tensors(folder / "images.safetensors", painted)
                write_json(folder / "cost.json", taken._asdict())
                write_json(folder / "settings.json", asdict(settings))
                if swapped is not None:
                    save_tensors(folder / "swaps.safetensors", swapped._asdict())
                write_line(folder / "metrics.jsonl", {f"generate/{name}": float(getattr(settings, name))
                                                      for name in ("guidance", "steps")})  # fmt: skip
            self.tracker.replay(node.folder / "metrics.jsonl")
        bar.close()

    def swapped(self, split: Split, settings: GenerateSettings) -> Swapped | None:
        """Paint pairs of captions with their fields exchanged, where captions have fields."""
        parts = self.parts
        count = pairs(split.captions, settings.swaps)
        if not count:
            return None
        reader = Reader(parts.embedder, parts.aligner, parts.fuser)
        captions, keys = split.captions[: 2 * count], split.keys[:count]
        return swap(reader, parts.backbone, captions, keys, settings, seed=self.run.seed, device=self.device)
