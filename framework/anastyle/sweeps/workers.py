"""Which process is at a trial, and whether it still lives.

On this machine its process tells. A worker elsewhere shows that it lives by a number that it raises; who sees the same
number for long takes it for dead. No two machines' clocks are compared. Optuna's own heartbeat is neither for journals
nor for ask and tell.
"""

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

BEAT_EVERY = 15.0  # seconds
GRACE = 90.0  # seconds of the same number


def this_worker() -> dict[str, Any]:
    """Return what names this process among all machines' and times'."""
    return {"host": platform.node(), "place": _place(), "pid": os.getpid(), "began": _began(os.getpid())}


def name(worker: Mapping[str, Any]) -> str:
    """Return a worker's name for a message."""
    return f"process {worker.get('pid')} on {worker.get('host')}"


def _place() -> str:
    """Return what two processes share if one's process ids mean something to the other."""
    parts = []
    for file in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            parts.append(os.readlink(file) if os.path.islink(file) else Path(file).read_text().strip())
    return "/".join(parts) or str(psutil.boot_time())


def _began(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 1)
    except psutil.Error:
        return None


class Watch:
    """What this process has seen of other workers' signs of life."""

    def __init__(self) -> None:
        self.me = this_worker()
        self._seen: dict[int, tuple[Any, float]] = {}  # trial -> its number, and when it was first seen

    def is_dead(self, trial: int, about: Mapping[str, Any]) -> bool:
        """Say whether the worker of a running trial is gone; asked while nobody else takes trials.

        Arguments:
            about: the trial's attributes: ``worker`` and ``beat``.
        """
        worker = about.get("worker")
        if worker is None or worker == self.me:  # killed while it took the trial; left behind by ourselves
            return True
        if (worker["host"], worker["place"]) == (self.me["host"], self.me["place"]):
            return _began(worker["pid"]) != worker["began"]
        sign, now = (worker, about.get("beat")), time.monotonic()
        if self._seen.get(trial, (None, 0.0))[0] != sign:
            self._seen[trial] = sign, now
        return now - self._seen[trial][1] > GRACE


@contextmanager
def beating(beat: Callable[[int], None]) -> Iterator[None]:
    """Call ``beat`` with a growing number every few seconds while the block runs; its failures are left to others."""
    over = threading.Event()

    def run() -> None:
        number = 0
        while not over.wait(BEAT_EVERY):
            number += 1
            with contextlib.suppress(Exception):  # a storage that is away; whoever needs it next waits, and says so
                beat(number)

    thread = threading.Thread(target=run, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
