"""``anastyle diagnose RUN``: where a run loses the factors it was asked for, and which code holds what of them.

From real images to painted ones accuracy is lost in the autoencoder, in the codes, and on the way from codes to
pixels. Each row below lets one more of these in, under the study's own judge, on the same held-out images.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anastyle.checkpoint import load_tensors, load_trainable_state
from anastyle.data.images import unsigned
from anastyle.data.loader import in_order
from anastyle.data.prepare import prepared
from anastyle.data.split import Split
from anastyle.devices import device, to_device, use_all_cores
from anastyle.errors import ConfigError, MissingError
from anastyle.evaluation.bootstrap import share
from anastyle.evaluation.compare import references_of, runs_in
from anastyle.evaluation.control.codes import FEWEST
from anastyle.evaluation.control.inventory import TEXT, VISUAL, Code, Held, factor_codes, fused_codes, inventory
from anastyle.evaluation.diagnosis import Diagnosis, Number, Shown, write
from anastyle.evaluation.distances import Array
from anastyle.evaluation.evaluate import FACTOR, MEAN
from anastyle.evaluation.judge import Judge, pixels
from anastyle.evaluation.measure import values_of
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.values import Value
from anastyle.interfaces import Factors, Reading
from anastyle.painting.chain import Chain
from anastyle.painting.finished import FinishedRun
from anastyle.parts import Parts
from anastyle.sampling import classifier_free, conditions, sample
from anastyle.stages.training import Disentangle
from anastyle.streams import noise

IMAGES, PROBED = 320, 1000  # held-out images that are painted, and whose codes are probed, by default and at most
BATCH = 64
JUDGE = re.compile(r"judge-[0-9a-f]+")
SAMPLES = "samples.safetensors"  # hits by caption, where a run's evaluate stage kept them
REAL, BEHIND = "real held-out images", "the same after the autoencoder"
WORDS, READ, SEEN = "painted from its words", "codes read off the words", "codes of the images themselves"


@dataclass
class Case:
    """A finished run on a set with known factors, ready to be looked into."""

    run: FinishedRun
    chain: Chain
    parts: Parts
    split: Split  # the held-out captions that were painted, the first of them first
    judge: Judge
    factors: dict[str, Tensor]  # those that the judge tells, each (len(split),)
    kinds: dict[str, list[str]]  # kind of factor -> its factors
    count: int  # images judged
    settings: Settings
    notes: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.chain.device


def diagnose(folder: Path, images: int = IMAGES) -> str:
    """Return where accuracy is lost, as Markdown; write it into the run's folder as diagnosis.md and diagnosis.csv.

    Raises:
        MissingError: there is no such run, or what it was measured with is gone.
        ConfigError: the run was not measured, or its set tells no factors.
    """
    use_all_cores()
    case = opened(FinishedRun.open(folder), images)
    seen = codes_of_images(case)
    found = Diagnosis(
        about=f"{case.run.name}: held-out images under {case.judge.fingerprint()}",
        factors=list(case.factors),
        kinds=case.kinds,
        shown=list(rows(case, seen)),
        codes={code.name: content for code, content in contents(case, seen)},
        notes=case.notes,
    )
    return write(found, case.run.folder)


def opened(run: FinishedRun, images: int) -> Case:
    """Return a run with its parts, data and judge; what is missing is told before anything heavy is loaded."""
    if images < 1:
        raise ConfigError(f"--images {images}: must be at least 1.")
    painted = load_tensors(run.stored("generate") / "images.safetensors")["images"]
    values = values_of(run.stored("evaluate"))
    data = prepared(run.config["data"], run.output)
    parts = Parts(run.config, data, seed=run.seed, cache=run.output / "cache")
    asked = run.config["stages"]["generate"].get("split") or "test"
    split = data.split(asked, image_size=parts.image_size, captions=parts.captions)
    known = {name: target for name, target in split.factors.items() if (target >= 0).all()}
    if not known:
        raise ConfigError(
            f"{run.name}: its set ({data.manifest.dataset}) tells no factors of its images, and without them neither "
            "accuracy nor probes can be had.\n  Diagnose a run on a set with known factors, such as phantom."
        )
    judge = judge_of(run, values)
    factors = {name: target for name, target in known.items() if name in judge.heads}
    anatomy = set(data.anatomy_factors)
    kinds = {"anatomy": [f for f in factors if f in anatomy], "style": [f for f in factors if f not in anatomy]}
    draws = (run.config["stages"].get("evaluate") or {}).get("bootstrap") or Settings.draws
    count = min(images, len(painted), len(split))
    chain = run.chain().to(device())
    return Case(run, chain, parts, split, judge, factors, kinds, count, Settings(draws=draws))


def judge_of(run: FinishedRun, values: Mapping[str, Value]) -> Judge:
    """Return the judge that a run was measured by, which its protocol names.

    Raises:
        ConfigError: no judge has looked at its factors.
        MissingError: the judge is not in the store.
    """
    named = JUDGE.search(values[MEAN].protocol) if MEAN in values else None
    if named is None:
        raise ConfigError(f"{run.name}: no judge has measured factors in it. Diagnose a run on a set that tells them.")
    store = run.output / "store" / "instruments"
    for file in sorted(store.glob("*/judge.safetensors")):
        judge = Judge.load(file)
        if judge.fingerprint() == named[0]:
            judge.model.to(device())
            return judge
    raise MissingError(f"{store}: {named[0]}, by which {run.name} was measured, is not there. Run the study again.")


# Where accuracy is lost


def rows(case: Case, seen: Factors | None) -> Iterator[Shown]:
    """Yield what the judge sees of each factor: real images first, then less and less of what painting stands on."""
    first = list(range(case.count))
    yield judged(case, REAL, pixels(case.split, case.judge.model.side, first)[0])
    yield judged(case, BEHIND, behind_autoencoder(case, first))
    yield from stored_rows(case)
    own = load_tensors(case.run.stored("generate") / "images.safetensors")["images"][: case.count]
    how = READ if "factors" in case.chain.reader.fuser.needs else WORDS
    yield judged(case, f"this run, {case.run.folder.parent.name}: {how}", own)
    if seen is not None and same_units(case):
        yield judged(case, f"this run: {SEEN}", painted(case, seen))


def judged(case: Case, name: str, images: Tensor) -> Shown:
    """Return what the judge sees in uint8 images (n, 3, H, W) of the first captions."""
    answers = case.judge.answers(images)
    hits = [(answers[name] == target[: case.count]).double().numpy() for name, target in case.factors.items()]
    return of_hits(case, name, np.stack(hits))


def of_hits(case: Case, name: str, hits: Array) -> Shown:
    """Return the row of hits (factors, n)."""
    single = [Number(*share(some, case.settings)) for some in hits]
    numbers = dict(zip(case.factors, single, strict=True))
    return Shown(name, Number(*share(hits, case.settings)), numbers, hits.shape[1], hits)


@torch.no_grad()
def behind_autoencoder(case: Case, first: list[int]) -> Tensor:
    """Return the first held-out images encoded and decoded, uint8 (n, 3, H, W)."""
    backbone: Any = case.chain.backbone
    autoencoder, shown = backbone.autoencoder, []  # with its weights of this run, if it was tuned
    for batch in in_order(case.split.subset(first), ("image",), batch_size=BATCH):
        assert batch.image is not None
        mean, _ = autoencoder.encode(batch.image.to(case.device)).chunk(2, dim=1)
        shown.append(unsigned(autoencoder.decode(mean)))
    return torch.cat(shown)


def stored_rows(case: Case) -> Iterator[Shown]:
    """Yield the study's other rows of the same seed as they were measured, its references first."""
    study = case.run.folder.parents[1]
    references = references_of(study)
    others = [other for other in runs_in(study) if other.seed == case.run.seed and other.folder != case.run.folder]
    for other in sorted(others, key=lambda other: other.folder.parent.name not in references):
        variant = other.folder.parent.name
        name = f"{'reference' if variant in references else 'row'} {variant}"
        if "evaluate" not in other.stages:
            continue
        values = values_of(other.stored("evaluate"))
        if MEAN not in values or case.judge.fingerprint() not in values[MEAN].protocol:
            case.notes.append(f"{name} is left out: another judge measured it, or none.")
            continue
        hits = stored_hits(case, other.stored("evaluate"))
        yield of_hits(case, name, hits) if hits is not None else of_values(case, name, values)


def stored_hits(case: Case, measured: Path) -> Array | None:
    """Return the hits (factors, n) that an evaluate stage kept of the first captions, where it kept them."""
    kept = load_tensors(measured / SAMPLES) if (measured / SAMPLES).is_file() else {}
    hits = [kept[FACTOR + name][: case.count] for name in case.factors if FACTOR + name in kept]
    whole = len(hits) == len(case.factors) and all(len(some) == case.count for some in hits)
    return torch.stack(hits).double().numpy() if whole else None


def of_values(case: Case, name: str, values: Mapping[str, Value]) -> Shown:
    """Return the row of values that were stored without their hits."""
    numbers = {factor: number(values.get(FACTOR + factor)) for factor in case.factors}
    return Shown(name, number(values[MEAN]), numbers, values[MEAN].n)


def number(value: Value | None) -> Number:
    """Return a stored value with its interval; NaN where there is none."""
    return Number(float("nan")) if value is None else Number(value.value, value.low, value.high)


# Codes of the images themselves


def codes_of_images(case: Case) -> Factors | None:
    """Return what the encoder sees in held-out images, in the units of a reading; None where nothing was trained to."""
    parts, fingerprint = case.parts, case.run.stages.get("disentangle")
    if parts.encoder is None or fingerprint is None:
        case.notes.append("This run trains no encoder: there are no codes of images, to probe or to paint from.")
        return None
    stage = Disentangle(parts.encoder)
    load_trainable_state(stage, load_tensors(case.run.stored("disentangle") / "weights.safetensors"))
    stage.requires_grad_(False).eval()
    probed = case.split.subset(range(max(min(PROBED, len(case.split)), case.count)))
    parts.encode_factors(probed, fingerprint, case.device)
    target = probed.batch(range(len(probed)), ("target",)).target
    assert target is not None
    with torch.no_grad():
        return case.chain.reader.aligner.standardised(to_device(target, case.device))


def same_units(case: Case) -> bool:
    """Are the factors that words are read into those of the encoder, so that a fuser takes either?"""
    encoder, given = case.parts.encoder, case.chain.reader.aligner.dims
    if "factors" not in case.chain.reader.fuser.needs or encoder is None:
        return False
    if given is not None and tuple(map(tuple, given)) != tuple(map(tuple, encoder.dims)):
        case.notes.append(
            f"Nothing is painted from {SEEN}: the aligner reads factors of its own, {shapes(given)}, where the "
            f"encoder's are {shapes(encoder.dims)}."
        )
        return False
    return True


def shapes(dims: tuple[tuple[int, int], ...]) -> str:
    """Return tokens and widths in words."""
    return " and ".join(f"{count} x {size}" for count, size in dims)


@torch.no_grad()
def painted(case: Case, seen: Factors) -> Tensor:
    """Return what the run paints from codes of the first images: captions, noise and guidance as in its own."""
    chain, images = case.chain, []
    for start in range(0, case.count, BATCH):
        at = slice(start, min(start + BATCH, case.count))
        keys = case.split.keys[at]
        asked = conditions(chain.reader.fuser, Reading(Factors(*(f[at] for f in seen))), len(keys), case.device)
        start_from = noise(chain.backbone.noise_shape(), case.run.seed, "generate", keys, 0).to(case.device)
        latent = sample(chain.backbone, classifier_free(asked, chain.guidance), start_from, steps=chain.steps)
        images.append(unsigned(chain.backbone.decode(latent).image))
    return torch.cat(images)


# Which code holds what


def contents(case: Case, seen: Factors | None) -> Iterator[tuple[Code, dict[str, Held]]]:
    """Yield what every code holds of every factor."""
    count = min(PROBED, len(case.split))
    if count < FEWEST:
        case.notes.append(f"Nothing is probed: {count} held-out images are too few, {FEWEST} the least.")
        return
    factors = {name: target[:count].numpy() for name, target in case.factors.items()}
    reader = case.chain.reader
    readings = list(read(case, count))
    codes = [] if seen is None else factor_codes(VISUAL, Factors(*(factor[:count] for factor in seen)))
    if parted := [reading.factors for reading in readings if reading.factors is not None]:
        codes += factor_codes(TEXT, Factors(*(torch.cat(some) for some in zip(*parted, strict=True))))
    for code in codes + fused_codes(reader.fuser, readings):
        yield code, inventory(code, factors, case.settings)


@torch.no_grad()
def read(case: Case, count: int) -> Iterator[Reading]:
    """Yield the readings of the first captions, by batches."""
    words = [caption.text for caption in case.split.captions[:count]]
    for start in range(0, count, BATCH):
        yield case.chain.reader.read(words[start : start + BATCH], case.device)
