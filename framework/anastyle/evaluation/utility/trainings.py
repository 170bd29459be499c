"""One network for each arm and seed, what it predicts of the test images, and the sentence that says how."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from anastyle.data.cache import cached
from anastyle.errors import ConfigError
from anastyle.evaluation.distances import Array
from anastyle.evaluation.utility.arms import Arm, Pool, Pools, training_set
from anastyle.evaluation.utility.intervals import resamples
from anastyle.evaluation.utility.networks import Recipe, answered, trained
from anastyle.evaluation.utility.results import Predicted

VERSION = 1  # raised when the same settings come to train other networks


@dataclass(frozen=True)
class UtilitySettings:
    """The person's choices of a comparison."""

    recipe: Recipe = field(default_factory=Recipe)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the networks, not of the system that painted the images; the same in every arm."""
    ratios: tuple[float, ...] = (1.0,)
    """Shares of the synthetic images that are added to the real ones, each beside a control of its own."""
    draws: int = 200
    """Resamples of the test images behind an interval."""
    max_side: int = 64
    """Networks look at images no larger than this."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"utility: seeds={list(self.seeds)}: name one or more, each once")
        if not self.ratios or not all(0 < ratio <= 1 for ratio in self.ratios):
            raise ConfigError(f"utility: ratios={list(self.ratios)}: each must be above 0 and at most 1")
        if self.draws == 1 or self.draws < 0:
            raise ConfigError(f"utility: draws={self.draws}: must be at least 2, or 0 for no intervals")


class Task(NamedTuple):
    """What the networks of a comparison learn."""

    name: str
    network: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Tensor, Pool], Tensor]  # of images in [-1, 1] and the rest of their batch
    predict: Callable[[Tensor], Tensor]  # logits (n, ...) to what is kept of them


@dataclass(frozen=True)
class Trainings:
    """The networks of a comparison: one for each arm and seed."""

    task: Task
    pools: Pools
    settings: UtilitySettings
    device: str | torch.device = "cpu"
    cache: Path | None = None

    def predictions(self, arms: Sequence[Arm]) -> dict[str, list[Predicted]]:
        """Return what each arm's networks predict of the test images, (n, ...), one a seed."""
        return {arm.name: [self.prediction(arm, seed) for seed in self.settings.seeds] for arm in arms}

    def prediction(self, arm: Arm, seed: int) -> Predicted:
        """Return what one network predicts of the test images, (n, ...); arms on real images serve every system."""
        pool = training_set(arm, self.pools.real, self.pools.synthetic, seed)

        def compute() -> dict[str, Tensor]:
            network = trained(self.task.network, pool, self.task.loss, self.settings.recipe, seed, self.device)
            return {"predicted": self.task.predict(answered(network, self.pools.test.images, self.device))}

        if self.cache is None:
            return compute()["predicted"].numpy()
        identity = {
            "what": f"utility, {self.task.name}, version {VERSION}",
            "train": pool.fingerprint(),
            "test": self.pools.test.fingerprint(),
            "recipe": asdict(self.settings.recipe),
            "seed": seed,
            "device": torch.device(self.device).type,
        }
        return cached(self.cache, identity, compute)["predicted"].numpy()

    def resamples(self) -> Array:
        """Return how often each test image counts in each bootstrap draw, (draws, n)."""
        test = self.pools.test
        return resamples(test.labels.numpy(), self.pools.groups, self.settings.draws, seed=0)

    def how(self) -> str:
        """Return how everything was measured, for protocols."""
        pools, recipe, seeds = self.pools, self.settings.recipe, self.settings.seeds
        named = ", ".join(map(str, seeds))
        return "; ".join(
            [
                f"{self.task.name}, {recipe.steps} steps of {recipe.batch_size} in every arm, {recipe.words()}",
                f"{len(pools.real.labels)} real and {len(pools.synthetic.labels)} synthetic images at "
                f"{pools.real.images.shape[-1]} px",
                tested(pools),
                f"mean over trainings with seeds {named}" if len(seeds) > 1 else f"one training, seed {named}",
                interval(self.settings),
            ]
        )


def tested(pools: Pools) -> str:
    """Return what networks are tested on, in words."""
    text = f"tested on {len(pools.test.labels)} real test images"
    if pools.units < len(pools.groups):
        text += f" in {pools.units} groups"
    if pools.left_out:
        text += f", without {pools.left_out} whose caption, or whose group's, synthetic images were asked for"
    return text


def interval(settings: UtilitySettings) -> str:
    """Return what intervals are, in words."""
    if not settings.draws:
        return "no interval"
    trainings = "plus that between trainings" if len(settings.seeds) > 1 else "alone, for want of a second training"
    return (
        f"interval: 95 %, Student's t on the variance over {settings.draws} bootstrap draws of test images, by group "
        f"and within classes, {trainings}; for this one synthetic set, and for each comparison by itself"
    )
