"""The evaluate stage: a run's images under the instruments, and what it leaves for the report."""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from anastyle.checkpoint import is_complete, load_tensors, write_folder
from anastyle.config import section, typed
from anastyle.data.cache import cached
from anastyle.data.images import picture_of, unsigned
from anastyle.data.loader import in_order
from anastyle.evaluation.control.faithful import Reader
from anastyle.evaluation.control.lesions import Lesions
from anastyle.evaluation.control.measured import control_values
from anastyle.evaluation.control.segmenter import Segmenter
from anastyle.evaluation.evaluate import evaluate_images
from anastyle.evaluation.judge import Judge, questions
from anastyle.evaluation.memorisation.bench import Bench
from anastyle.evaluation.memorisation.gate import gate
from anastyle.evaluation.reference import FEWEST, Reference, Settings, reference
from anastyle.evaluation.utility.measured import utility_values
from anastyle.evaluation.values import Value
from anastyle.interfaces import Feature
from anastyle.parts import Parts
from anastyle.plan import Node
from anastyle.registry import CAPTIONERS, FEATURES
from anastyle.settings import EvaluateSettings
from anastyle.stages import INSTRUMENTS
from anastyle.tracking import Tracker

SEED = 0  # of the instruments: the same ones measure every variant and seed


@dataclass
class Instruments:
    """The networks and real images that every variant of a data set is measured with."""

    features: dict[str, Feature]
    judge: Judge | None
    real: Reference
    bench: Bench | None = None  # of the memorisation gate; None where no gate is wanted
    lesions: Lesions | None = None  # where there are masks, and no factors that a judge could tell

    @property
    def spaces(self) -> dict[str, Feature]:
        """The features, beside pixels, in which a copy may give itself away."""
        return {"domain": self.features["domain"]}


_built: dict[str, Instruments] = {}  # a study's variants share them within a process


def measure(
    node: Node, plan: dict[str, Node], parts: Parts, output: Path, device: torch.device, tracker: Tracker
) -> None:
    """Evaluate one run's generated images, the last of the stages of ``plan``, and store the values whole."""
    painted = plan["generate"]
    settings = typed(EvaluateSettings, node.settings, "stages.evaluate")
    images = load_tensors(painted.folder / "images.safetensors")["images"]
    rows = list(range(len(images)))
    # what was asked is what the held-out captions say in full, whatever part of it the variant was told
    train = parts.data.split("train", image_size=parts.image_size)
    test = parts.data.split("test", image_size=parts.image_size)
    tools = instruments(settings, len(images), parts, output, device)
    draws = Settings(draws=settings.bootstrap)
    lossy = decoded(parts, rows, output, device) if tools.judge or tools.lesions else None
    values = evaluate_images(
        images, rows, train, test, features=tools.features, judge=tools.judge, real=tools.real, decoded=lossy,
        settings=draws,
    )  # fmt: skip
    if tools.lesions:
        values |= tools.lesions.faithfulness(images, lossy, draws)
    aligned = plan["align"].folder if "align" in plan else None
    values |= control_values(painted.folder, aligned, test, parts.data, tools.judge, tools.lesions, draws)
    if settings.utility:
        values |= utility_values(
            images, rows, train, test, parts.data.classes, networks=settings.utility, steps=settings.utility_steps,
            cache=output / "cache", device=device,
        )  # fmt: skip
    copied = gate(images, train, test, tools.spaces, bench=tools.bench) if tools.bench else None
    values |= copied.values if copied else {}
    metrics = {f"eval/{name}": value.value for name, value in values.items()}
    grid = sheet(images[: painted.settings["grid"]])
    with write_folder(node.folder) as folder:
        text = json.dumps({name: value.to_json() for name, value in values.items()}, indent=1)
        (folder / "values.json").write_text(text)
        line = {"step": 0, "time": round(time.time() * 1000), **metrics}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        grid.save(folder / "samples.png")
        if copied:
            copied.write(folder)
    tracker.replay(node.folder / "metrics.jsonl")


def values_of(folder: Path) -> dict[str, Value]:
    """Read the values that ``measure`` stored."""
    return {name: Value(**value) for name, value in json.loads((folder / "values.json").read_text()).items()}


def instruments(
    settings: EvaluateSettings, count: int, parts: Parts, output: Path, device: torch.device
) -> Instruments:
    """Return the instruments of a data set, trained on its real training images once."""
    identity = [
        INSTRUMENTS,
        parts.data.fingerprint,
        parts.image_size,
        settings.judge_steps,
        settings.domain_steps,
        settings.segmenter_steps,
        SEED,
    ]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    built = f"{key}-{count}-{settings.captioner}"
    if built in _built:
        return _built[built]
    train = parts.data.split("train", image_size=parts.image_size)
    test = parts.data.split("test", image_size=parts.image_size)
    folder = output / "store" / "instruments" / key
    domain, highfreq = (_feature(name, settings, len(parts.data.classes)) for name in ("domain", "highfreq"))
    asked, outlined = questions(train), train.has_masks and not train.factors
    if not is_complete(folder):
        with write_folder(folder) as fresh:
            domain.fit(train, seed=SEED, device=device)
            domain.save(fresh / "domain.safetensors")
            if asked:
                Judge.train(train, SEED, settings.judge_steps, device=device).save(fresh / "judge.safetensors")
            if outlined:
                side = min(Settings.max_side, parts.image_size)
                network = Segmenter.train(train, SEED, settings.segmenter_steps, side=side, device=device)
                network.save(fresh / "segmenter.safetensors")
    domain.load(folder / "domain.safetensors")
    judge = Judge.load(folder / "judge.safetensors") if asked else None
    real = reference(train, test, count, Settings(draws=settings.bootstrap), cache=output / "cache")
    tools = Instruments({"domain": domain, "highfreq": highfreq}, judge, real)
    if outlined:
        reader = None
        if settings.captioner:
            cls, config = section(CAPTIONERS, {"name": settings.captioner}, "stages.evaluate.captioner")
            reader = Reader(cls(config), settings.captioner, train, test, real.side)
        tools.lesions = Lesions(Segmenter.load(folder / "segmenter.safetensors"), test, real, reader)
    if settings.memorisation and min(len(train), len(test)) >= FEWEST:
        tools.bench = Bench(train, test, tools.spaces)
    _built[built] = tools
    return tools


def _feature(name: str, settings: EvaluateSettings, classes: int) -> Any:
    options = {"name": name, "steps": settings.domain_steps} if name == "domain" else {"name": name}
    cls, config = section(FEATURES, options, "feature")
    return cls(config, classes=classes)


def decoded(parts: Parts, rows: list[int], output: Path, device: torch.device) -> Tensor:
    """Return real test images after the autoencoder, uint8 (n, 3, S, S): what no generator behind it can exceed."""
    autoencoder = parts.autoencoder.to(device).eval()
    identity = {
        "what": "decoded",
        "data": parts.data.fingerprint,
        "image_size": parts.image_size,
        "rows": len(rows),
        "autoencoder": autoencoder.fingerprint(),
    }

    @torch.no_grad()
    def compute() -> dict[str, Tensor]:
        shown = []
        for batch in in_order(parts.test.subset(rows), ("image",), batch_size=64):
            assert batch.image is not None
            mean, _ = autoencoder.encode(batch.image.to(device)).chunk(2, dim=1)
            shown.append(unsigned(autoencoder.decode(mean)))
        return {"images": torch.cat(shown)}

    return cached(output / "cache", identity, compute)["images"]


def sheet(images: Tensor, columns: int = 8) -> Image.Image:
    """Lay uint8 images (n, 3, S, S) out as one picture."""
    count, _, side, _ = images.shape
    columns = min(columns, count)
    lines = -(-count // columns)
    page = torch.full((3, lines * (side + 2) - 2, columns * (side + 2) - 2), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (side + 2), i % columns * (side + 2)
        page[:, top : top + side, left : left + side] = image
    return picture_of(page)
