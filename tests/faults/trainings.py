"""Kills one small training at every change it makes to the disk, and sends it signals; prints what came of it as JSON.

A program of its own, so that it may fork: ``python tests/faults/trainings.py FOLDER``.
"""

import json
import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "framework"))

from forks import Child, after
from test_trainer import Toy, logged, train

from anastyle import checkpoint
from anastyle.checkpoint import checkpoints, verify

SETTINGS = {"steps": 4, "checkpoint_every": 2, "keep_checkpoints": 1, "log_every": 1, "warmup": 1}
SLOW = 1.0  # seconds that a step takes which is to be met in the middle


class Slow(Toy):
    """Takes its time over the third step."""

    def forward(self, batch, step):
        end = time.monotonic() + SLOW * (step == 2)
        while time.monotonic() < end:
            time.sleep(0.01)
        return super().forward(batch, step)


def job(folder: Path, child: Child, stage: type[Toy] = Toy):
    def training() -> int:
        logging.basicConfig()
        child.noting(checkpoint, "save_checkpoint", "saving")
        child.noting(checkpoint, "remove_folder", "removing")
        child.noting(stage, "forward", "step")
        torch.save(train(folder, stage(), **SETTINGS), folder / "weights.pt")
        return 0

    return training


def outcome(folder: Path) -> tuple[dict, list]:
    return torch.load(folder / "weights.pt"), logged(folder)


def same(one: tuple[dict, list], other: tuple[dict, list]) -> bool:
    (weights, log), (others, other_log) = one, other
    return log == other_log and all(torch.equal(weights[name], others[name]) for name in weights)


def every_change(root: Path, straight: tuple[dict, list], changes: int) -> dict:
    """Kill a training at each change of the disk; name what it was at, and which trainings came to another end."""
    places, differing, broken = [], [], []
    for number in range(1, changes + 1):
        folder, child = root / str(number), Child()
        code = child.run(job(folder, child), root / "log", fatal=number)
        places.append(child.at)
        kept = checkpoints(folder)
        broken += [str(path) for path in kept if verify(path)]
        again = child.run(job(folder, child), root / "log")
        if (code, again) != (-signal.SIGKILL, 0) or not same(outcome(folder), straight):
            differing.append(number)
        elif leftovers := [path.name for path in folder.iterdir() if path.name.startswith(".")]:
            broken += leftovers
    return {"places": places, "differing": differing, "broken": broken}


def removals(root: Path, finished: Path) -> dict:
    """Kill the removal of a training's folder at each change of the disk; name what was left in part, or for good."""
    broken, number, code, folder = [], 0, -signal.SIGKILL, root / "removed" / "stage.work"
    while code == -signal.SIGKILL:
        shutil.copytree(finished, folder)
        number += 1
        code = Child().run(lambda: checkpoint.remove_folder(folder), root / "log", fatal=number)
        broken += [str(path) for path in checkpoints(folder) if verify(path)]
        checkpoint.remove_folder(folder)
        broken += [str(path) for path in folder.parent.iterdir()]
    return {"kills": number - 1, "broken": broken}


def signals(root: Path, straight: tuple[dict, list]) -> dict:
    """Send signals in the middle of a long step; say how the training ended, and whether it went on to the same end."""
    found = {}
    for name, numbers in {"term": [signal.SIGTERM], "int": [signal.SIGINT], "twice": [signal.SIGTERM] * 2}.items():
        folder, child, seconds = root / name, Child(), 0.0

        def strike(pid: int, folder: Path = folder, numbers: list = numbers) -> None:
            nonlocal seconds
            while not (folder / "checkpoint-2").is_dir():
                time.sleep(0.005)
            for number in numbers:
                after(SLOW / 3, number)(pid)
            began = time.monotonic()
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            seconds = time.monotonic() - began

        code = child.run(job(folder, child, Slow), root / "log", strike)
        newest = checkpoints(folder)[0].name
        child.run(job(folder, child), root / "log")
        found[name] = {"code": code, "seconds": seconds, "newest": newest, "same": same(outcome(folder), straight)}
    return found


def main(root: Path) -> None:
    child = Child()
    train(root / "first", **SETTINGS)  # wakes what torch only imports when it first trains
    assert child.run(job(root / "straight", child), root / "log") == 0, (root / "log").read_text()
    straight = outcome(root / "straight")
    found = {
        "every_change": every_change(root, straight, child.changes),
        "removals": removals(root, root / "straight"),
        "signals": signals(root, straight),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
