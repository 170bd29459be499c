"""What images of validation captions are worth, by one number: guidance and sampling steps are chosen by it.

The networks that look have seen training images alone, and the captions are not those of the tables. Every set of
images of one criterion is drawn again alike, so that the differences between two are paired.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from anastyle.data.split import Split
from anastyle.errors import ConfigError, DataError
from anastyle.evaluation.bootstrap import mean
from anastyle.evaluation.control.faithful import FEWEST as FEWEST_TOLD
from anastyle.evaluation.control.faithful import MEAN as FAITHFUL
from anastyle.evaluation.control.faithful import Reader, Words, outlined
from anastyle.evaluation.control.segmenter import Segmenter
from anastyle.evaluation.distances import Array, interval
from anastyle.evaluation.distances import drawn as halves
from anastyle.evaluation.evaluate import MEAN as FACTORS
from anastyle.evaluation.features import features_of
from anastyle.evaluation.instruments import captioning, segmenter, trained
from anastyle.evaluation.judge import Judge, at_side, pixels
from anastyle.evaluation.kernels import kid, kids
from anastyle.evaluation.reference import FEWEST, Settings
from anastyle.evaluation.utility.arms import pool
from anastyle.interfaces import Feature
from anastyle.parts import Parts
from anastyle.settings import EvaluateSettings, GenerateSettings, ValidateSettings
from anastyle.stages.choice import Candidate, Choice, Start

KID = "kid"
STREAM = 8  # of the draws
TOO_FEW = f"the set has no validation split of {FEWEST} images or more, so the file's own"

Paint = Callable[[GenerateSettings], Tensor]
"""Settings -> uint8 images (n, 3, H, W) of the validation captions, from noise that is the same every time."""


class Measured(NamedTuple):
    """One number of a set of images, and the same number of images drawn again and again."""

    value: float
    draws: Array  # (draws,)

    def interval(self) -> tuple[float | None, float | None]:
        """Return the 95 % interval; None without draws."""
        return interval(self.value, self.draws) if len(self.draws) else (None, None)


class Criterion(ABC):
    """What images of the first n validation captions are worth."""

    key: str
    lower_is_better = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def measured(self, images: Tensor) -> Measured:
        """Return what uint8 images (n, 3, H, W) are worth."""


class Share(Criterion):
    """The mean over parts of the share of images that show what was asked.

    Arguments:
        hits: images -> (parts, n), 1 where it shows, NaN where nothing was asked.
    """

    def __init__(self, key: str, hits: Callable[[Tensor], Array], settings: Settings) -> None:
        super().__init__(settings)
        self.key, self.hits = key, hits

    def measured(self, images: Tensor) -> Measured:
        """Return the mean, and that of captions drawn with replacement."""
        hits, draws = self.hits(images), self.settings.draws
        rng = np.random.default_rng([self.settings.seed, STREAM])
        rows = rng.integers(hits.shape[1], size=(draws, hits.shape[1]))
        return Measured(mean(hits), np.array([mean(hits[:, some]) for some in rows]))


class Distance(Criterion):
    """The kernel distance to real validation images on domain features; its draws are halves, see ``half_samples``."""

    key, lower_is_better = KID, True

    def __init__(self, network: Feature, real: Tensor, side: int, settings: Settings) -> None:
        super().__init__(settings)
        self.network, self.side = network, side
        self.real = features_of(network, real, side)

    def measured(self, images: Tensor) -> Measured:
        """Return the distance, and those of halves of both sides."""
        seen, draws, seed = features_of(self.network, images, self.side), self.settings.draws, self.settings.seed
        value = kid(seen, self.real, seed=seed).mean
        if not draws:
            return Measured(value, np.empty(0))
        sizes = len(seen), len(self.real)
        drawn = halves(*sizes, *(max(2, size // 2) for size in sizes), draws=draws, seed=seed)
        return Measured(value, kids(seen, self.real, drawn))


def validate(
    paint: Paint, criterion: Criterion, count: int, own: GenerateSettings, settings: ValidateSettings,
    start: Paint | None = None,
) -> Choice:  # fmt: skip
    """Paint with every candidate and choose one.

    Arguments:
        count: of validation captions.
        own: what the file says of painting; where its steps hold, they are not varied.
        start: paints with the parts before diffuse has trained them.
    """
    grid = [(steps, guidance) for steps in sorted(set(settings.steps or [own.steps])) for guidance in
            sorted(set(settings.guidance))]  # fmt: skip

    def look(by: Paint, steps: int, guidance: float) -> Measured:
        return criterion.measured(by(GenerateSettings(steps=steps, guidance=guidance, batch_size=settings.batch_size)))

    seen = [look(paint, *at) for at in grid]
    candidates = [
        Candidate(guidance, steps, one.value, *one.interval())
        for (steps, guidance), one in zip(grid, seen, strict=True)
    ]
    best = chosen(candidates, lower_is_better=criterion.lower_is_better)
    return Choice(
        candidates[best].guidance, candidates[best].steps, criterion.key, criterion.lower_is_better, count, candidates,
        compared(seen[best], look(start, own.steps, own.guidance), own.guidance) if start else None,
    )  # fmt: skip


def compared(trained: Measured, start: Measured, guidance: float) -> Start:
    """Return what training has added to a row's own start, caption by caption."""
    apart = Measured(trained.value - start.value, trained.draws - start.draws)
    return Start(guidance, start.value, apart.value, *apart.interval())


def chosen(candidates: Sequence[Candidate], *, lower_is_better: bool) -> int:
    """Return the place of the best candidate, or of the best among those with the fewest steps in its interval.

    Of equals, the first.
    """

    def worth(at: int) -> float:
        return -candidates[at].value if lower_is_better else candidates[at].value

    best = max(range(len(candidates)), key=worth)
    bound = candidates[best].high if lower_is_better else candidates[best].low
    if bound is None:
        return best
    near = [at for at in range(len(candidates)) if worth(at) >= (-bound if lower_is_better else bound)]
    fewest = min(candidates[at].steps for at in near)
    return max((at for at in near if candidates[at].steps == fewest), key=worth)


@dataclass
class Held:
    """The first validation captions, and what they may be measured with."""

    settings: EvaluateSettings
    parts: Parts
    asked: Split  # those captions in full, whatever part of them a variant was told
    output: Path
    device: torch.device

    @property
    def train(self) -> Split:
        """What the networks have learned from."""
        return self.parts.data.split("train", image_size=self.parts.image_size)

    @property
    def draws(self) -> Settings:
        """How numbers are drawn again."""
        return Settings(draws=self.settings.bootstrap)

    def criterion(self, wanted: str) -> Criterion:
        """Return a criterion by its key, or under ``auto`` the first that this set allows.

        Raises:
            ConfigError: this set does not allow it.
            DataError: there are too few captions for any.
        """
        ways = {FACTORS: self.factors, FAITHFUL: self.faithful, KID: self.distance}
        for key in ways if wanted == "auto" else [wanted]:
            if (found := ways[key]()) is not None:
                return found
        lacks = {FACTORS: "known factors", FAITHFUL: f"masks, and {FEWEST_TOLD} captions that tell an attribute"}
        if wanted in lacks:
            raise ConfigError(f"stages.validate.criterion={wanted}: needs {lacks[wanted]}. Set it to auto.")
        raise DataError(
            f"stages.validate: chooses on {len(self.asked)} captions; {FEWEST} is the least. Raise stages.validate."
            "images, or prepare a larger validation part."
        )

    def factors(self) -> Criterion | None:
        """Return the judge's mean accuracy, where factors are known."""
        _, judge = trained(self.settings, self.parts, self.output, self.device)
        asked = {
            name: target
            for name, target in self.asked.factors.items()
            if judge is not None and name in judge.heads and (target >= 0).any()
        }
        if judge is None or not asked:
            return None
        return Share(FACTORS, lambda images: judged(judge, images, asked), self.draws)

    def faithful(self) -> Criterion | None:
        """Return how often a captioner sees what it sees in the real images, where these have masks."""
        train = self.train
        if not (self.settings.captioner and train.has_masks and self.asked.has_masks):
            return None
        side = min(Settings.max_side, self.parts.image_size)
        outlines = segmenter(self.settings, self.parts, train, self.output, self.device)
        reader = captioning(self.settings, train, pool(self.asked, side, range(len(self.asked))), side)
        wanted = told(reader.asked)
        if not wanted:
            return None
        return Share(FAITHFUL, lambda images: shown(reader, outlines, images, side, wanted), self.draws)

    def distance(self) -> Criterion | None:
        """Return the kernel distance to all real validation images."""
        real = self.parts.validation
        if real is None or len(self.asked) < FEWEST:
            return None
        domain, _ = trained(self.settings, self.parts, self.output, self.device)
        side = min(Settings.max_side, self.parts.image_size)
        return Distance(domain, pixels(real, side)[0], side, self.draws)


def judged(judge: Judge, images: Tensor, asked: dict[str, Tensor]) -> Array:
    """Return where the judge sees what was asked, (factors, n); NaN where nothing is known."""
    answers = judge.answers(images)
    hits = [torch.where(target >= 0, (answers[name] == target).double(), torch.nan) for name, target in asked.items()]
    return torch.stack(hits).numpy()


def told(asked: Sequence[Words]) -> dict[str, np.ndarray]:
    """Return attributes that enough images tell, and in more than one word: attribute -> words (n,), empty: untold."""
    names = dict.fromkeys(name for words in asked for name in words)
    found = {name: np.array([words.get(name, "") for words in asked]) for name in names}
    return {
        name: words
        for name, words in found.items()
        if (words != "").sum() >= FEWEST_TOLD and len(set(words[words != ""])) > 1
    }


def shown(reader: Reader, outlines: Segmenter, images: Tensor, side: int, wanted: dict[str, np.ndarray]) -> Array:
    """Return where images show what is wanted, (attributes, n); NaN where nothing is."""
    small = at_side(images, side)
    seen = reader.words(outlined(small, outlines(small)))
    return np.stack([
        np.where(words != "", np.array([one.get(name, "") for one in seen]) == words, np.nan)
        for name, words in wanted.items()
    ])  # fmt: skip
