"""A worker that trains nothing: it takes trials from the book and ends them. Run as a program, to be killed."""

import sys
import time
from pathlib import Path

from optuna.trial import TrialState

from anastyle.sweeps.book import Book, Taken
from anastyle.sweeps.methods import SAMPLERS, Method
from anastyle.sweeps.records import Sweep
from anastyle.sweeps.space import Choice, Range

SPACE = [Choice("backbone.lora_rank", (2, 4, 8)), Range("stages.diffuse.lr", 1e-4, 1e-2, log=True)]
ABOUT = {"backbone.name": "compact_dit"}


def sweep(
    trials: int = 6, storage: str | None = None, sampler: str = "random", objectives: int = 1, **options
) -> Sweep:
    """Return a sweep over two options."""
    objective = dict([("fd_domain", "minimize"), ("recall", "maximize")][:objectives])
    method = Method(sampler, SAMPLERS[sampler](seed=1, **options))
    space = SPACE[:1] if sampler == "grid" else SPACE
    return Sweep(trials, objective, method, None, space, storage)


def book(folder: Path, chosen: Sweep, say=lambda text: print(text, flush=True), about=ABOUT) -> Book:
    """Open the book of a sweep."""
    return Book(chosen, "clerks", folder, about, say)


def worth(taken: Taken) -> float:
    """Return what a trial comes to."""
    return abs(taken.params["stages.diffuse.lr"] - 1e-3) + taken.params["backbone.lora_rank"]


def work(opened: Book, *, pause: float = 0.0, hang_at: int = -1) -> list[int]:
    """Take trials until there is none to take and none under way; return whose they were."""
    mine = []
    while True:
        taken = opened.take()
        if taken is None:
            if opened.over(opened.all()):
                return mine
            time.sleep(0.1)
            continue
        print(f"took {taken.number}", flush=True)
        with opened.alive(taken):
            time.sleep(3600 if len(mine) == hang_at else pause)
        opened.tell(taken, TrialState.COMPLETE, [worth(taken)])
        mine.append(taken.number)


if __name__ == "__main__":
    place, address, trials, pause, hang_at = sys.argv[1:]
    print(work(book(Path(place), sweep(int(trials), address or None)), pause=float(pause), hang_at=int(hang_at)))
