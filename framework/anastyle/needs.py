"""What an experiment needs and does not find: data, captions, weights, room on the disk. Nothing is opened or built."""

import os
import shutil
from pathlib import Path
from typing import Any

from anastyle.config import section as read_part
from anastyle.data.captions import BUILT_IN, absent
from anastyle.data.prepare import dataset_options
from anastyle.experiment import Config, Experiment
from anastyle.fetch import wanted
from anastyle.merge import PARTS
from anastyle.registry import DATASETS
from anastyle.weights import HOME, is_id, lacking, place

LEAST_FREE = 1 << 30  # bytes at the output
SHARED = ("cache", "data", "store", ".locks")  # folders of the output


def missing(experiment: Experiment) -> list[str]:
    """Name all that is not there."""
    return [*path_problems(experiment), *weight_problems(experiment), *disk_problems(experiment)]


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
    """Name the pretrained weights that are not here, all in one, and how to get them."""
    lines, remote = [], False
    for checkpoint in wanted(experiment):
        named = _is_path("", checkpoint.path) and not Path(checkpoint.path).expanduser().exists()  # a path problem
        if not named and (missing := lacking(place(checkpoint), checkpoint.files)):
            files = ", ".join(name.split(" or ")[0] for name in missing)
            lines.append(f"{checkpoint.option}={checkpoint.path} ({files})")
            remote = remote or is_id(checkpoint.path)
    if not lines:
        return []
    fetch = f"Fetch them where there is a network: anastyle fetch {experiment.file} --to weights; here: {HOME}=weights"
    return [f"weights that are not here: {'; '.join(lines)}. {fetch if remote else 'Check the paths.'}"]


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


def disk_problems(experiment: Experiment) -> list[str]:
    """Name what hinders writing to the output folder and to those in it that studies share."""
    output = experiment.output
    there = output.absolute()
    while not there.exists():
        there = there.parent
    shared = (there, experiment.folder, *(output / name for name in SHARED))
    closed = [str(path) for path in shared if path.exists() and not (path.is_dir() and os.access(path, os.W_OK))]
    if closed:
        return [f"output={output}: {', '.join(closed)} cannot be written to. Choose another: output=..."]
    free = shutil.disk_usage(there).free
    if free < LEAST_FREE:
        return [
            f"output={output}: {gib(free)} free, {gib(LEAST_FREE)} needed. Make room, or choose another: output=..."
        ]
    return []


def gib(count: int) -> str:
    """Return a number of bytes in GiB."""
    return f"{count / (1 << 30):.1f} GiB"
