"""What ``anastyle check`` does: everything that can be known of an experiment before anything is built.

Reading the file has already settled names and options; here come the wiring, the paths and the disk.
"""

import re
import shutil
from collections.abc import Iterator
from typing import Any

from anastyle.config import refuse
from anastyle.errors import MissingError
from anastyle.evaluation.fairness import card
from anastyle.experiment import STAGES, Config, Experiment, Run
from anastyle.needs import gib, missing
from anastyle.plan import active
from anastyle.registry import REGISTRIES
from anastyle.sweeps.settings import read_sweep
from anastyle.sweeps.settings import summary as sweep_rows

NEEDED = {  # what a stage cannot do without
    "autoencode": ("autoencoder",),
    "diffuse": ("autoencoder", "embedder", "aligner", "fuser", "backbone"),
    "generate": ("autoencoder", "embedder", "aligner", "fuser", "backbone"),
}


def check(experiment: Experiment, *, fair: bool = False) -> str:
    """Return a summary of an experiment that can run; ``fair``: with the terms on which its rows are compared.

    Raises:
        ConfigError: parts that do not fit each other; all of them at once.
        MissingError: a path that is not there, or a disk that is full; all of them at once.
    """
    refuse(wiring_problems(experiment), str(experiment.file))
    refuse(missing(experiment), str(experiment.file), MissingError)
    said = [summary(experiment), *([] if experiment.sweep is None else [sweep_summary(experiment)])]
    return "\n".join([*said, *filter(None, [card(experiment).text() if fair else ""])])


def sweep_summary(experiment: Experiment) -> str:
    """Describe a sweep that can run.

    Raises:
        ConfigError: it cannot; all problems at once.
    """
    sweep, problems = read_sweep(experiment, lambda probe: [*wiring_problems(probe), *missing(probe)])
    refuse(problems, str(experiment.file))
    assert sweep is not None  # no problem, hence a sweep
    return "\n".join(f"  {title:<8} {text}" for title, text in sweep_rows(sweep))


def wiring_problems(experiment: Experiment) -> list[str]:
    """Name what of each variant does not fit together."""
    problems: dict[str, list[str]] = {}
    for name, config in experiment.variants.items():
        for problem in _misfits(config):
            problems.setdefault(problem, []).append(name)
    everywhere = len(experiment.variants)
    return [
        problem if len(names) == everywhere else f"variant {', '.join(names)}: {problem}"
        for problem, names in problems.items()
    ]


def _misfits(config: Config) -> Iterator[str]:
    stages = {stage: settings for stage, settings in config["stages"].items() if settings is not None}
    for stage, parts in NEEDED.items():
        if stage in stages:
            yield from (
                f"{part}: stages.{stage} needs one. Name one, or set the stage to null."
                for part in parts
                if config[part] is None
            )
    if "validate" in stages and "generate" not in stages:
        yield "stages.validate: there is nothing to choose for. Add stages.generate, or set it to null."
    if "evaluate" in stages and "generate" not in stages:
        yield "stages.evaluate: there is nothing to measure. Add stages.generate, or set it to null."
    aligner, fuser = _class(config, "aligner"), _class(config, "fuser")
    if aligner is not None and aligner.trained:
        name = config["aligner"]["name"]
        if config["encoder"] is None:
            yield f"aligner: '{name}' learns from an encoder's factors. Name an encoder, or an untrained aligner."
        if "diffuse" in stages:
            yield from (
                f"stages.{stage}: is off, but aligner '{name}' learns there. Turn it on, or name an untrained aligner."
                for stage in ("disentangle", "align")
                if stage not in stages
            )
    if aligner is not None and fuser is not None and not fuser.needs <= aligner.gives:
        needs, gives = ", ".join(sorted(fuser.needs)), ", ".join(sorted(aligner.gives))
        names = config["fuser"]["name"], config["aligner"]["name"]
        yield f"fuser: '{names[0]}' needs {needs}, and aligner '{names[1]}' gives {gives}. Change one of the two."
    backbone = _class(config, "backbone")
    if backbone is not None and fuser is not None and backbone.needs_pooled and not fuser.gives_pooled:
        names = config["backbone"]["name"], config["fuser"]["name"]
        yield f"backbone: '{names[0]}' needs a caption's pooled embedding, and fuser '{names[1]}' hands none on."


def _class(config: Config, part: str) -> Any:
    return None if config[part] is None else REGISTRIES[part].get(config[part]["name"])


def summary(experiment: Experiment) -> str:
    """Describe the grid, the parts and the stages in a few lines."""
    there = experiment.output.absolute()
    while not there.exists():
        there = there.parent
    runs, seeds = len(experiment.runs), ", ".join(map(str, experiment.seeds))
    beside = f" + {len(experiment.references)} references" if experiment.references else ""
    count = f"{len(experiment.ranked)} variants{beside} x {len(experiment.seeds)} seeds ({seeds}) = {runs} runs"
    rows = [
        ("study", f"{experiment.name}, kept in {experiment.folder} ({gib(shutil.disk_usage(there).free)} free)"),
        (
            "runs",
            singular(count),
        ),
    ]
    width = max(map(len, experiment.variants))
    rows += [
        ("beside" if name in experiment.references else "variant", f"{name:<{width}}  {_parts(config)}")
        for name, config in experiment.variants.items()
    ]
    rows += [("stages", _stages(experiment.runs)), ("data", _data(experiment.runs[0].config["data"]))]
    lines = [f"  {title:<8} {text}" for title, text in rows]
    return "\n".join([f"{experiment.file}: ok", *lines])


def singular(text: str) -> str:
    """Return a text without the plural of what there is one of."""
    return re.sub(r"\b1 (variant|reference|seed|run)s\b", r"1 \1", text)


def _parts(config: Config) -> str:
    parts = [config[part]["name"] for part in ("encoder", "aligner", "fuser", "backbone") if config[part] is not None]
    return " > ".join(parts) or "no parts"


def _stages(runs: list[Run]) -> str:
    sizes: dict[str, dict[str, None]] = {stage: {} for stage in STAGES}
    for run in runs:
        for stage in active(run):
            sizes[stage][_size(run.config["stages"][stage])] = None
    return ", ".join(f"{stage} {' or '.join(each)}".strip() for stage, each in sizes.items() if each) or "none"


def _size(settings: Config) -> str:
    if "images" in settings:
        return f"{settings['images']} images"
    if settings.get("epochs") is not None:
        return f"{settings['epochs']:g} epochs"
    return f"{settings['steps']} steps" if "steps" in settings else ""


def _data(data: Config) -> str:
    source = data["root"] if data["name"] is None else f"{data['name']}, prepared on first use"
    return f"{source}; {data['image_size']} x {data['image_size']} pixels, captions: {data['captions']}"
