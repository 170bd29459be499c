"""What every run of a data set is measured with: networks trained on its real training images, once, and kept."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anastyle.checkpoint import is_complete, write_folder
from anastyle.config import section
from anastyle.data.split import Split
from anastyle.evaluation.control.faithful import Reader
from anastyle.evaluation.control.lesions import Lesions
from anastyle.evaluation.control.segmenter import Segmenter
from anastyle.evaluation.judge import Judge, questions
from anastyle.evaluation.memorisation.bench import Bench
from anastyle.evaluation.reference import FEWEST, Reference, Settings, reference
from anastyle.evaluation.utility.arms import Pool, pool
from anastyle.interfaces import Feature
from anastyle.locks import alone
from anastyle.parts import Parts
from anastyle.registry import CAPTIONERS, FEATURES
from anastyle.settings import EvaluateSettings
from anastyle.stages import INSTRUMENTS

SEED = 0  # of the instruments: the same ones measure every variant and seed


@dataclass
class Instruments:
    """The networks and real images that every variant of a data set is measured with."""

    features: dict[str, Feature]
    judge: Judge | None
    real: Reference
    bench: Bench | None = None  # of the memorisation gate; None where no gate is wanted
    lesions: Lesions | None = None  # where there are masks, and a system paints some or no factors are known

    @property
    def spaces(self) -> dict[str, Feature]:
        """The features, beside pixels, in which a copy may give itself away."""
        return {"domain": self.features["domain"]}


_built: dict[str, Instruments] = {}  # a study's variants share them within a process


def instruments(
    settings: EvaluateSettings, count: int, parts: Parts, output: Path, device: torch.device, *, masks: bool
) -> Instruments:
    """Return the instruments of a data set.

    Arguments:
        count: of generated images.
        masks: does the system paint masks?
    """
    train = parts.data.split("train", image_size=parts.image_size)
    test = parts.data.split("test", image_size=parts.image_size)
    outlined = train.has_masks and (masks or not train.factors)
    folder = place(output, parts, settings.judge_steps, settings.domain_steps)
    built = f"{folder}-{count}-{outlined and settings.captioner}-{settings.segmenter_steps}"
    if built in _built:
        return _built[built]
    domain, judge = networks(settings, parts, train, output, device)
    highfreq = _feature("highfreq", settings, len(parts.data.classes))
    real = reference(train, test, count, Settings(draws=settings.bootstrap), cache=output / "cache")
    tools = Instruments({"domain": domain, "highfreq": highfreq}, judge, real)
    if outlined:
        tools.lesions = _lesions(settings, parts, train, test, real, output, device)
    if settings.memorisation and min(len(train), len(test)) >= FEWEST:
        tools.bench = Bench(train, test, tools.spaces)
    _built[built] = tools
    return tools


def networks(
    settings: EvaluateSettings, parts: Parts, train: Split, output: Path, device: torch.device
) -> tuple[Feature, Judge | None]:
    """Return the domain features and, where there is something to ask, the judge; they saw training images alone."""
    folder = place(output, parts, settings.judge_steps, settings.domain_steps)
    domain, asked = _feature("domain", settings, len(parts.data.classes)), questions(train)

    def learn(fresh: Path) -> None:
        domain.fit(train, seed=SEED, device=device)
        domain.save(fresh / "domain.safetensors")
        if asked:
            Judge.train(train, SEED, settings.judge_steps, device=device).save(fresh / "judge.safetensors")

    once(output, folder, learn)
    domain.load(folder / "domain.safetensors")
    return domain, Judge.load(folder / "judge.safetensors") if asked else None


def place(output: Path, parts: Parts, *options: Any) -> Path:
    """Return where instruments of a data set are kept."""
    identity = [INSTRUMENTS, parts.data.fingerprint, parts.image_size, *options, SEED]
    return output / "store" / "instruments" / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def once(output: Path, folder: Path, learn: Callable[[Path], None]) -> None:
    """Write a folder whole, unless it is there; of several processes one does, and the others wait."""
    if is_complete(folder):
        return
    with alone(output, folder):
        if not is_complete(folder):
            with write_folder(folder) as fresh:
                learn(fresh)


def _feature(name: str, settings: EvaluateSettings, classes: int) -> Any:
    options = {"name": name, "steps": settings.domain_steps} if name == "domain" else {"name": name}
    cls, config = section(FEATURES, options, "feature")
    return cls(config, classes=classes)


def _lesions(
    settings: EvaluateSettings,
    parts: Parts,
    train: Split,
    test: Split,
    real: Reference,
    output: Path,
    device: torch.device,
) -> Lesions:
    """Return the segmenter and, where no judge can tell what was asked, the captioner."""
    seen, reader = pool(test, real.side, range(len(test))), None
    if settings.captioner and not train.factors:
        reader = captioning(settings, train, seen, real.side)
    return Lesions(segmenter(settings, parts, train, output, device), seen, real, reader)


def captioning(settings: EvaluateSettings, train: Split, held: Pool, side: int) -> Reader:
    """Return the captioner that has seen the training images, and what it says of held-out ones."""
    cls, config = section(CAPTIONERS, {"name": settings.captioner}, "stages.evaluate.captioner")
    return Reader(cls(config), settings.captioner, train, held, side)


def segmenter(settings: EvaluateSettings, parts: Parts, train: Split, output: Path, device: torch.device) -> Segmenter:
    """Return the segmenter that has seen the training images and their masks."""
    folder = place(output, parts, "segmenter", settings.segmenter_steps)
    side = min(Settings.max_side, parts.image_size)

    def learn(fresh: Path) -> None:
        trained = Segmenter.train(train, SEED, settings.segmenter_steps, side=side, device=device)
        trained.save(fresh / "segmenter.safetensors")

    once(output, folder, learn)
    return Segmenter.load(folder / "segmenter.safetensors")
