"""A sweep small enough to be run: nothing is learned in it, everything happens."""

import os
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SPACE = {
    "backbone.lora_rank": {"choice": [2, 4]},
    "stages.diffuse.lr": {"low": 1e-4, "high": 1e-2, "log": True},
}
TINY: dict[str, Any] = {
    "base": str(ROOT / "experiments" / "smoke.yaml"),
    "name": "tiny",
    "only": "no_disentanglement",
    "data": {"train": 32, "test": 32},
    "stages": {
        "disentangle": {"steps": 2, "batch_size": 8},
        "align": {"steps": 2, "batch_size": 8},
        "diffuse": {"steps": 4, "batch_size": 4, "log_every": 1},
        "generate": {"images": 16, "steps": 1, "grid": 4, "swaps": 0},
        "evaluate": {"judge_steps": 2, "domain_steps": 2, "bootstrap": 0, "memorisation": False},
    },
    "sweep": {"trials": 3, "objective": {"fd_domain": "minimize"}, "sampler": {"name": "random"}, "space": SPACE},
}


def write(folder: Path, **changes: Any) -> Path:
    """Write the sweep's file, with other options of its section; return it."""
    file = folder / "tiny.yaml"
    whole = {**TINY, "output": str(folder / "runs"), "sweep": {**TINY["sweep"], **changes}}
    file.write_text(yaml.safe_dump(whole, sort_keys=False))
    return file


def environment(**more: str) -> dict[str, str]:
    """Return what a worker is started with."""
    path = os.pathsep.join(str(ROOT / root) for root in ("framework", "plugins"))
    return {**os.environ, "PYTHONPATH": path, "ANASTYLE_TRACKING": "off", "OMP_NUM_THREADS": "1", **more}


def command(file: Path, *words: str) -> list[str]:
    """Return the command that starts a worker."""
    return [sys.executable, "-m", "anastyle", "sweep", str(file), *words]
