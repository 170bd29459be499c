"""What ``anastyle check`` does: everything that can be known of an experiment before anything is built.

Reading the file has already settled names and options; here come the wiring, the paths and the disk.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anastyle.config import refuse
from anastyle.config import section as read_part
from anastyle.data.captions import BUILT_IN, absent
from anastyle.data.prepare import dataset_options
from anastyle.errors import MissingError
from anastyle.experiment import STAGES, Config, Experiment
from anastyle.fetch import wanted
from anastyle.merge import PARTS
from anastyle.registry import DATASETS, REGISTRIES
from anastyle.weights import HOME, is_id, lacking, place

LEAST_FREE = 1 << 30  # bytes at the output
NEEDED = {  # what a stage cannot do without
    "autoencode": ("autoencoder",),
    "diffuse": ("autoencoder", "embedder", "aligner", "fuser", "backbone"),
    "generate": ("autoencoder", "embedder", "aligner", "fuser", "backbone"),
}


def check(experiment: Experiment) -> str:
    """Return a summary of an experiment that can run.

    Raises:
        ConfigError: parts that do not fit each other; all of them at once.
        MissingError: a path that is not there, or a disk that is full; all of them at once.
    """
    refuse(wiring_problems(experiment), str(experiment.file))
    missing = [*path_problems(experiment), *weight_problems(experiment), *disk_problems(experiment.output)]
    refuse(missing, str(experiment.file), MissingError)
    return summary(experiment)


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


def _class(config: Config, part: str) -> Any:
    return None if config[part] is None else REGISTRIES[part].get(config[part]["name"])


def path_problems(experiment: Experiment) -> list[str]:
    """Name every path that the experiment reads and that is not there."""
    found: dict[str, None] = {}
    for config in experiment.variants.values():
        root = config["data"].get("root")
        if root is not None and not (Path(root).expanduser() / "manifest.json").is_file():
            found[f"data.root={root}: no prepared set is there (no manifest.json). Write one: anastyle prepare"] = None
        elif problem := _no_captions(config["data"]):
            found[problem] = None
        told = _missing_source(config["data"]) if root is None and config["data"]["name"] else ""
        if told:
            found[told] = None
        for section in ("data", *PARTS):
            for option, value in (config[section] or {}).items():
                if option == "root" or (option == "source" and told):
                    continue
                if _is_path(option, value) and not Path(value).expanduser().exists():
                    found[f"{section}.{option}={value}: there is no such file or folder."] = None
    return list(found)


def weight_problems(experiment: Experiment) -> list[str]:
    """Name the pretrained weights that are not here, and how to get them."""
    found = []
    for checkpoint in wanted(experiment):
        named = _is_path("", checkpoint.path) and not Path(checkpoint.path).expanduser().exists()  # a path problem
        if not named and (missing := lacking(place(checkpoint), checkpoint.files)):
            found.append(f"{checkpoint.option}={checkpoint.path}: not here: {', '.join(missing)}")
    if any(is_id(checkpoint.path) for checkpoint in wanted(experiment)) and found:
        found[-1] += (
            f"\n  Where there is a network: anastyle fetch {experiment.file} --to weights; here: {HOME}=weights"
        )
    return found


def _no_captions(data: Config) -> str:
    """Say that the captions asked for are not there, and how to write them; or nothing."""
    name = data["captions"]
    if name in BUILT_IN:
        return ""
    if data.get("root") is not None:
        return absent(Path(data["root"]).expanduser(), name)
    return (
        f"data.captions={name}: needs a prepared set, and '{data['name']}' is prepared on first use. Write both, and "
        f"name the set as data.root:\n  anastyle prepare {data['name']} OUT    anastyle caption OUT {name}"
    )


def _missing_source(data: Config) -> str:
    """Say what the named dataset lacks, in its own words."""
    cls, options = read_part(DATASETS, {"name": data["name"], **dataset_options(data)}, where="data")
    return cls(options).missing()


def _is_path(option: str, value: Any) -> bool:
    """Tell a local path from a name: it starts like one, or is the source of a dataset."""
    return isinstance(value, str) and (option == "source" or value.startswith(("/", "./", "../", "~")))


def disk_problems(output: Path) -> list[str]:
    """Name what hinders writing to the output folder."""
    there = output.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        return [f"output={output}: {there} cannot be written to. Choose another: output=..."]
    free = shutil.disk_usage(there).free
    if free < LEAST_FREE:
        return [
            f"output={output}: {_gib(free)} free, {_gib(LEAST_FREE)} needed. Make room, or choose another: output=..."
        ]
    return []


def summary(experiment: Experiment) -> str:
    """Describe the grid, the parts and the stages in a few lines."""
    there = experiment.output.absolute()
    while not there.exists():
        there = there.parent
    runs, seeds = len(experiment.runs), ", ".join(map(str, experiment.seeds))
    count = f"{len(experiment.variants)} variants x {len(experiment.seeds)} seeds ({seeds}) = {runs} runs"
    rows = [
        ("study", f"{experiment.name}, kept in {experiment.folder} ({_gib(shutil.disk_usage(there).free)} free)"),
        (
            "runs",
            count.replace("1 variants", "1 variant").replace(" 1 seeds", " 1 seed").replace("= 1 runs", "= 1 run"),
        ),
    ]
    width = max(map(len, experiment.variants))
    rows += [("variant", f"{name:<{width}}  {_parts(config)}") for name, config in experiment.variants.items()]
    first = next(iter(experiment.variants.values()))
    rows += [("stages", _stages(first)), ("data", _data(first["data"]))]
    lines = [f"  {title:<8} {text}" for title, text in rows]
    return "\n".join([f"{experiment.file}: ok", *lines])


def _parts(config: Config) -> str:
    parts = [config[part]["name"] for part in ("encoder", "aligner", "fuser", "backbone") if config[part] is not None]
    return " > ".join(parts) or "no parts"


def _stages(config: Config) -> str:
    stages = {stage: config["stages"][stage] for stage in STAGES if config["stages"][stage] is not None}
    return ", ".join(f"{stage} {_size(settings)}".strip() for stage, settings in stages.items()) or "none"


def _size(settings: Config) -> str:
    if "images" in settings:
        return f"{settings['images']} images"
    if settings.get("epochs") is not None:
        return f"{settings['epochs']:g} epochs"
    return f"{settings['steps']} steps" if "steps" in settings else ""


def _data(data: Config) -> str:
    source = data["root"] if data["name"] is None else f"{data['name']}, prepared on first use"
    return f"{source}; {data['image_size']} x {data['image_size']} pixels, captions: {data['captions']}"


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
