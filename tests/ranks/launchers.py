"""The launchers under which tests start their programs, what these find there, and what they leave."""

import json
import os
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
PROGRAM = str(Path(__file__).with_name("program.py"))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch")
PATIENCE = 600.0  # seconds; a loaded machine starts two ranks in a minute


def environment(**more: str) -> dict[str, str]:
    """Return what a launched program finds in its environment."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
            "ANASTYLE_TRACKING": "off", **more}  # fmt: skip


def ranks(count: int, *more: str) -> tuple[str, ...]:
    """Return the launcher of some ranks on this machine's CPU."""
    return (*TORCHRUN, str(count), *more)


def config(name: str, *more: str) -> tuple[str, ...]:
    """Return the launcher that one of our files describes."""
    return (*ACCELERATE, "--config_file", str(ROOT / "launch" / f"{name}.yaml"), *more)


class Left:
    """What a run of the program left in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = load_file(folder / "weights.safetensors")
        lines = (folder / "work" / "metrics.jsonl").read_text().splitlines()
        self.log = [{name: value for name, value in json.loads(line).items() if name != "time" and "perf/" not in name}
                    for line in lines]  # fmt: skip

    def equals(self, other: "Left", *, within: float = 1e-6) -> None:
        """Check every logged number, relative, and every weight against another run's."""
        assert len(self.log) == len(other.log)
        for mine, others in zip(self.log, other.log, strict=True):
            assert mine == pytest.approx(others, rel=within), mine["step"]
        assert self.weights.keys() == other.weights.keys()
        for name, tensor in self.weights.items():
            assert (tensor.double() - other.weights[name].double()).abs().max() <= within, name
