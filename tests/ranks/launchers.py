"""The launchers under which tests start their programs, and what these find in their environment."""

import os
import sys
from pathlib import Path

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
