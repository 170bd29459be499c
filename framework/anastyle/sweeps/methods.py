"""Samplers, which choose what a trial tries, and pruners, which end one early: their names and options."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from anastyle.config import read_typed, refuse_below
from anastyle.errors import ConfigError, did_you_mean


@dataclass
class Sampler:
    """What every sampler takes."""

    seed: int | None = None
    """None: the experiment's first seed."""


@dataclass
class Random(Sampler):
    """Independent draws."""


@dataclass
class Grid(Sampler):
    """Every combination once, in an order shuffled by the seed; a range needs a step."""


@dataclass
class Tpe(Sampler):
    """Tree-structured Parzen estimators (Bergstra 2011)."""

    n_startup_trials: int = 10
    """Random trials before the first guess."""
    n_ei_candidates: int = 24
    multivariate: bool = False
    group: bool = False

    def __post_init__(self) -> None:
        refuse_below(self, n_startup_trials=0, n_ei_candidates=1)
        if self.group and not self.multivariate:
            raise ConfigError("group=true: needs multivariate=true.")


@dataclass
class Qmc(Sampler):
    """A low-discrepancy sequence: spread more evenly than random."""

    qmc_type: Literal["sobol", "halton"] = "sobol"
    scramble: bool = True


@dataclass
class Gp(Sampler):
    """Gaussian processes: for few, costly trials."""

    n_startup_trials: int = 10
    deterministic_objective: bool = False

    def __post_init__(self) -> None:
        refuse_below(self, n_startup_trials=0)


@dataclass
class Cmaes(Sampler):
    """Covariance matrix adaptation: numbers only, one objective. Needs the package ``cmaes``."""

    n_startup_trials: int = 1
    sigma0: float | None = None

    def __post_init__(self) -> None:
        refuse_below(self, n_startup_trials=0)


@dataclass
class Nsga2(Sampler):
    """A genetic algorithm for several objectives (Deb 2002)."""

    population_size: int = 20
    mutation_prob: float | None = None
    crossover_prob: float = 0.9
    swapping_prob: float = 0.5

    def __post_init__(self) -> None:
        refuse_below(self, population_size=2, crossover_prob=0, swapping_prob=0)


@dataclass
class Pruner:
    """What every pruner takes. Trials are compared by a loss of the diffuse stage."""

    term: str = "denoising"
    """Which term of its loss, unweighted: the mean of what was logged since the last comparison."""
    every: int | None = None
    """Steps between two comparisons; None: a tenth of the stage."""


@dataclass
class Median(Pruner):
    """Ends a trial that is worse than the median of the others at the same step."""

    n_startup_trials: int = 5
    """Finished trials before the first one is ended."""
    n_warmup_steps: int = 0
    """Steps of a trial before it can be ended."""
    n_min_trials: int = 1

    def __post_init__(self) -> None:
        refuse_below(self, n_startup_trials=0, n_warmup_steps=0, n_min_trials=1)


@dataclass
class Percentile(Median):
    """Ends a trial that is not among the best ``percentile`` percent."""

    percentile: float = 25.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.percentile <= 100:
            raise ConfigError(f"percentile={self.percentile}: must lie between 0 and 100.")


@dataclass
class Asha(Pruner):
    """Asynchronous successive halving (Li 2018): of those at a rung, one in ``reduction_factor`` goes on."""

    min_resource: int | None = None
    """Steps to the first rung; None: ``every``."""
    reduction_factor: int = 4
    min_early_stopping_rate: int = 0

    def __post_init__(self) -> None:
        refuse_below(self, reduction_factor=2, min_early_stopping_rate=0)


@dataclass
class Hyperband(Pruner):
    """Several brackets of successive halving (Li 2017)."""

    min_resource: int | None = None
    """Steps to the first rung; None: ``every``."""
    max_resource: int | None = None
    """None: the steps of the stage."""
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        refuse_below(self, reduction_factor=2)


SAMPLERS: dict[str, type[Sampler]] = {
    "tpe": Tpe,
    "random": Random,
    "grid": Grid,
    "qmc": Qmc,
    "gp": Gp,
    "cmaes": Cmaes,
    "nsga2": Nsga2,
}
PRUNERS: dict[str, type[Pruner]] = {"median": Median, "percentile": Percentile, "asha": Asha, "hyperband": Hyperband}


@dataclass(frozen=True)
class Method:
    """A sampler or a pruner: its name and its options."""

    name: str
    options: Any

    def own(self, *without: str) -> dict[str, Any]:
        """Return the options that Optuna knows, without some."""
        names = [field.name for field in fields(self.options) if field.name not in without]
        return {name: getattr(self.options, name) for name in names}


def read_method(known: dict[str, Any], mapping: Any, where: str) -> tuple[Method | None, list[str]]:
    """Return a ``{name: ..., options}`` section, or a bare name, and its problems."""
    if isinstance(mapping, str):
        mapping = {"name": mapping}
    if not isinstance(mapping, dict) or not isinstance(mapping.get("name"), str):
        return None, [f"{where}: write {{name: ...}}. Got {mapping!r}.\n  known: {', '.join(known)}"]
    name = mapping["name"]
    if name not in known:
        listed = f"\n  known: {', '.join(known)}"
        return None, [f"{where}.name: there is no '{name}'.{did_you_mean(name, known)}{listed}"]
    options, problems = read_typed(known[name], {k: v for k, v in mapping.items() if k != "name"}, where)
    return (Method(name, options) if options is not None else None), problems
