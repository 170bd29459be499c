"""Runs one small study: undisturbed, or stopped, killed and damaged; prints what came of it as JSON.

A program of its own, so that it may fork: ``python studies.py undisturbed``, ``jumping`` or ``disturbed AWAKE``.
It works in the folder it is started in.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import kills
from forks import Child, wake

from anastyle.checkpoint import SEAL
from anastyle.jsonlines import read_json

WORDS = [
    str(kills.SMOKE),
    *kills.OFTEN,
    "output=runs",
    "only=full",
    "data.train=48",
    "data.test=32",
    "stages.disentangle.steps=2",
    "stages.align.steps=4",
    "stages.diffuse.steps=4",
    "stages.generate.images=16",
    "stages.generate.steps=2",
    "stages.generate.grid=4",
    "stages.generate.swaps=4",
    "stages.evaluate.judge_steps=2",
    "stages.evaluate.domain_steps=2",
    "stages.evaluate.bootstrap=5",
]
OUTPUT, LOG, AWAKE = Path("runs"), Path("log"), Path("awake.json")


def undisturbed() -> dict:
    child = Child()
    return {"code": child.run(kills.study(child, WORDS, AWAKE), LOG)}


def jump() -> None:
    """Have the clock go back an hour at every look."""
    clock, looks = time.time, itertools.count()
    time.time = lambda: clock() - 3600 * next(looks)


def jumping() -> dict:
    jump()
    return undisturbed()


def disturbed(awake: str) -> dict:
    """Stop the study while it paints, kill it some times, then damage one of its stages; the clock jumps meanwhile."""
    wake(Path(awake))
    jump()
    child, record = Child(), kills.Record()
    stopped = child.run(kills.study(child, WORDS), LOG, lambda pid: terminate(pid, child))
    status = read_json(OUTPUT / "smoke" / "full" / "seed-42" / "status.json")["status"]
    kills.disturbed(WORDS, OUTPUT, random.Random(0), 2.0, 20, 5, record)
    files = {name: content.hex() for name, content in kills.contents(OUTPUT.absolute()).items()}
    Path("files.json").write_text(json.dumps(files))
    weights = next(path for path in OUTPUT.glob("store/diffuse/*/weights.safetensors") if (path.parent / SEAL).exists())
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = child.run(kills.study(child, [*WORDS, "name=other", "stages.generate.steps=3"]), Path("refused"))
    return {
        "stopped": stopped,
        "status": status,
        "kills": record.kills.total(),
        "lost": [*record.broken, *record.failures],
        "refused": refused,
        "said": Path("refused").read_text().partition("error: ")[2].splitlines(),
    }


def terminate(pid: int, child: Child) -> None:
    while child.at != "generating" and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.005)
    os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    how, *words = sys.argv[1:]
    print(json.dumps({"undisturbed": undisturbed, "jumping": jumping, "disturbed": disturbed}[how](*words)))
