"""The ``sweep`` section of an experiment file, read and held against the experiment it searches.

sweep:
  trials: 24                                     # in all, however often the command is run
  objective: {fd_domain: minimize}               # what of the table; several: a Pareto set. Where the set has a
                                                 # validation split, its captions are painted, not those of the test
  sampler: {name: tpe}                           # tpe, random, grid, qmc, gp, cmaes, nsga2
  pruner: {name: median}                         # median, percentile, asha, hyperband, or null
  space:                                         # the paths one would type
    backbone.lora_rank: {choice: [4, 8, 16]}
    stages.diffuse.lr: {low: 1e-4, high: 1e-2, log: true}
  storage: null                                  # a file in the study's folder, or postgresql://...
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from anastyle.errors import AnastyleError, did_you_mean
from anastyle.evaluation.control.faithful import FAITHFUL
from anastyle.evaluation.evaluate import FACTOR
from anastyle.evaluation.tables import CONTROL, COSTS, KNOWN, column
from anastyle.evaluation.utility.results import PREFIX as UTILITY
from anastyle.evaluation.values import COST
from anastyle.experiment import Experiment, read
from anastyle.passwords import without_password
from anastyle.sweeps.methods import PRUNERS, SAMPLERS, Method, read_method
from anastyle.sweeps.records import PRUNED, Sweep
from anastyle.sweeps.space import Choice, Parameter, grid, read_space, size, words

KEYS = ("trials", "objective", "sampler", "pruner", "space", "storage")
DIRECTIONS = ("minimize", "maximize")
METRICS = (*KNOWN, *(COST + name for name in COSTS))
GROUPS = tuple(dict.fromkeys((FACTOR, FAITHFUL, *CONTROL, UTILITY)))
SCHEMES = ("postgresql", "sqlite")
MOST_POINTS = 10_000  # of a grid


Look = Callable[[Experiment], list[str]]


def read_sweep(experiment: Experiment, look: Look | None = None) -> tuple[Sweep | None, list[str]]:
    """Return what an experiment's ``sweep`` section says, or None, and every problem of it.

    Arguments:
        look: names what is wrong with the experiment under one of the values that a sweep may choose; None: no value
            is tried.
    """
    mapping: Mapping[str, Any] = experiment.sweep or {}
    problems = [
        f"sweep.{key}: no such option.{did_you_mean(key, KEYS)}\n  options: {', '.join(KEYS)}"
        for key in mapping
        if key not in KEYS
    ]
    config = next(iter(experiment.variants.values()))
    space, found = read_space(mapping.get("space"), {path: type(value) for path, value in leaves(config).items()})
    problems += found
    sampler, found = read_method(SAMPLERS, mapping.get("sampler") or {"name": "tpe"}, "sweep.sampler")
    problems += found
    pruner = None
    if mapping.get("pruner") is not None:
        pruner, found = read_method(PRUNERS, mapping["pruner"], "sweep.pruner")
        problems += found
    objective = mapping.get("objective")
    if isinstance(objective, Mapping):  # one of the file's is dropped by null
        objective = {metric: how for metric, how in objective.items() if how is not None}
    problems += _objective_problems(objective) + _storage_problems(mapping.get("storage"))
    if sampler is not None and sampler.options.seed is None:
        sampler = Method(sampler.name, replace(sampler.options, seed=experiment.seeds[0]))
    trials, found = _trials(mapping.get("trials"), space, sampler)
    problems += found
    if problems or sampler is None or not isinstance(objective, Mapping):
        return None, problems
    sweep = Sweep(trials, dict(objective), sampler, pruner, space, mapping.get("storage"))
    tried = _probes(experiment, sweep, look) if look is not None else ()
    return sweep, [*_misfits(experiment, sweep, config), *tried]


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the options of a spelled-out experiment by their dotted paths."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _objective_problems(objective: Any) -> list[str]:
    if not isinstance(objective, Mapping) or not objective:
        return [f"sweep.objective: write metrics and directions, {{fd_domain: minimize}}. Got {objective!r}."]
    problems = []
    for metric, direction in objective.items():
        if metric not in METRICS and not metric.startswith(GROUPS):
            listed = f"\n  metrics: {', '.join(METRICS)}; {', '.join(f'{group}...' for group in GROUPS)}"
            problems.append(f"sweep.objective.{metric}: no such metric.{did_you_mean(metric, METRICS)}{listed}")
        elif direction not in DIRECTIONS:
            near = did_you_mean(str(direction), DIRECTIONS)
            problems.append(f"sweep.objective.{metric}: write minimize or maximize. Got {direction!r}.{near}")
        elif metric in METRICS and column(metric).lower_is_better != (direction == "minimize"):
            better = "lower" if column(metric).lower_is_better else "higher"
            problems.append(f"sweep.objective.{metric}: {direction}, but {better} is better. Turn it round.")
    return problems


def _storage_problems(storage: Any) -> list[str]:
    if storage is None:
        return []
    if not isinstance(storage, str):
        return [f"sweep.storage: write null, or a database's address. Got {storage!r}."]
    scheme = urlsplit(storage).scheme.partition("+")[0]
    if scheme not in SCHEMES:
        return [
            f"sweep.storage={without_password(storage)}: write null for a file in the study's folder, "
            f"postgresql://USER@HOST/DATABASE for many machines, or sqlite:///FILE for one worker."
        ]
    if scheme == "postgresql" and find_spec("psycopg2") is None and find_spec("psycopg") is None:
        return [f"sweep.storage={without_password(storage)}: needs a driver. Install it: pip install 'anastyle[sweep]'"]
    return []


def _trials(trials: Any, space: list[Parameter], sampler: Method | None) -> tuple[int, list[str]]:
    """Return the number of trials, of a grid by default all its points, and what is wrong with it."""
    if trials is not None and (type(trials) is not int or trials < 1):
        return 0, [f"sweep.trials: write a whole number, at least 1: the total. Got {trials!r}."]
    if sampler is None or sampler.name != "grid":
        return trials or 0, [] if trials else ["sweep.trials: say how many, in all."]
    endless = [
        f"sweep.space.{one.path}: a grid needs {{choice: [...]}}, or a step." for one in space if not one.points()
    ]
    if endless or not space:
        return 0, endless
    if (size(space) or 0) > MOST_POINTS:
        return 0, [f"sweep.space: a grid of {size(space):,} points. Use another sampler, or fewer values."]
    points = len(grid(space, 0))
    if trials is not None and trials > points:
        return 0, [f"sweep.trials={trials}: the grid has {points} points. Write {points}, or leave it out."]
    return trials or points, []


def _misfits(experiment: Experiment, sweep: Sweep, config: Mapping[str, Any]) -> Iterator[str]:
    """Name what of a sweep does not fit together, or not the experiment."""
    if len(experiment.ranked) > 1:
        names = ", ".join(experiment.ranked)
        yield f"sweep: searches one variant, and there are {len(experiment.ranked)} ({names}). Choose: only=..."
    if config["stages"]["evaluate"] is None:
        yield "sweep.objective: nothing is measured, stages.evaluate is off. Turn it on."
    chosen = [one.path for one in sweep.space if one.path in ("stages.generate.guidance", "stages.generate.steps")]
    if config["stages"]["validate"] is not None and chosen:
        yield f"sweep.space.{chosen[0]}: stages.validate chooses it in every trial. Drop one: stages.validate=null."
    name = sweep.sampler.name
    if name == "cmaes":
        if find_spec("cmaes") is None:
            yield "sweep.sampler: 'cmaes' needs the package cmaes: pip install 'anastyle[sweep]', or choose another."
        if len(sweep.objective) > 1:
            yield "sweep.sampler: 'cmaes' takes one objective. Choose nsga2, tpe or random."
        if words := [one.path for one in sweep.space if isinstance(one, Choice)]:
            yield f"sweep.sampler: 'cmaes' takes ranges, and {words[0]} is a choice. Choose tpe."
    if sweep.pruner is not None:
        yield from _pruner_misfits(sweep, sweep.pruner, config)


def _pruner_misfits(sweep: Sweep, pruner: Method, config: Mapping[str, Any]) -> Iterator[str]:
    if len(sweep.objective) > 1:
        count = len(sweep.objective)
        yield f"sweep.pruner: compares trials by one number, and there are {count} objectives. Set it to null."
    stage = config["stages"][PRUNED]
    if stage is None:
        yield f"sweep.pruner: compares the loss of stages.{PRUNED}, which is off. Set the pruner to null."
        return
    terms, term = list(stage["weights"]), pruner.options.term
    if term not in terms:
        known = f"\n  terms: {', '.join(terms)}"
        yield f"sweep.pruner.term={term}: stages.{PRUNED} has no such loss.{did_you_mean(term, terms)}{known}"
    every = pruner.options.every
    if every is not None and every < stage["log_every"]:
        yield f"sweep.pruner.every={every}: losses are logged every {stage['log_every']} steps. Write that, or more."
    foreign = [one.path for one in sweep.space if one.path.startswith(("data.", "autoencoder."))]
    if foreign:
        yield f"sweep.pruner: losses on other data or latents do not compare; {foreign[0]} is searched. Set it to null."


def _probes(experiment: Experiment, sweep: Sweep, look: Look) -> Iterator[str]:
    """Try each value of each option: what does not exist or cannot be is told before anything runs."""
    parts = [one for one in sweep.space if one.path.endswith(".name")]
    seen = set[str]()
    for parameter in sweep.space:
        part = parameter.path.partition(".")[0]
        others = [one for one in parts if one.path == f"{part}.name" and one is not parameter]
        settings = [{one.path: name} for one in others for name in one.probes()] or [{}]
        alone = isinstance(parameter, Choice) and not [one for one in parts if one is not parameter]
        for value in parameter.probes():
            tries = [_try(experiment, {**other, parameter.path: value}, look if alone else None) for other in settings]
            text = tries[0]
            if "" in tries or text in seen:
                continue
            seen.add(text)
            yield f"sweep.space.{text}" if text.startswith(parameter.path) else f"sweep.space.{parameter.path}: {text}"


def _try(experiment: Experiment, params: Mapping[str, Any], look: Look | None) -> str:
    """Say why an experiment cannot be run with these options, or nothing."""
    try:
        probe = trial_experiment(experiment, params)
        problems = look(probe) if look else []
    except AnastyleError as error:
        return str(error).removeprefix(f"{experiment.file}: ")
    return f"{next(iter(params.values()))}: {problems[0]}" if problems else ""


def trial_experiment(experiment: Experiment, params: Mapping[str, Any]) -> Experiment:
    """Return the experiment with a trial's options laid over it."""
    return read(experiment.file, [*experiment.overrides, *words(params)])


def summary(sweep: Sweep) -> list[tuple[str, str]]:
    """Return what ``anastyle check`` says of a sweep."""
    count = size(sweep.space)
    over = "" if count is None else f" of {count} combinations"
    goals = ", ".join(f"{direction} {metric}" for metric, direction in sweep.objective.items())
    how = sweep.sampler.name + (f", pruned by {sweep.pruner.name}" if sweep.pruner else "")
    width = max(len(parameter.path) for parameter in sweep.space)
    rows = [("sweep", f"{sweep.trials} trials{over}, {goals}, {how}")]
    rows += [("space", f"{parameter.path:<{width}}  {parameter}") for parameter in sweep.space]
    if sweep.storage is not None:
        rows.append(("storage", without_password(sweep.storage)))
    return rows
