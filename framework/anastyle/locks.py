"""Who may work on a run or a stage: one process at a time, and the next one learns which.

A lock is the operating system's, so it is gone with its process, however that ended. Lock files lie in
``<output>/.locks``, apart from what they guard: they stay when ``--fresh`` removes a study.
"""

import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from anastyle.checkpoint import remove_leftovers
from anastyle.config import refuse
from anastyle.devices import agreed, ranks
from anastyle.jsonlines import read_json, write_json

POLL = 1.0  # seconds between two looks at a lock that another process holds


@contextmanager
def claimed(output: Path, folders: Iterable[Path]) -> Iterator[None]:
    """Hold the locks of runs' folders, all of them or none.

    Raises:
        ConfigError: another process works on some of them; names it.
    """
    with ExitStack() as held:
        problems = []
        if ranks().is_main_process:
            for folder in folders:
                place = _place(output, folder)
                if not _taken(place, held):
                    problems.append(f"{folder}: {_holder(place)} works here. Wait for it, or choose another name=...")
        refuse(agreed(problems))
        yield


@contextmanager
def turn(output: Path, folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a stored folder, all ranks as one, after the process that has it now.

    What a killed one left beside the folder is gone by then.

    Arguments:
        say: is told, once, whom this process waits for.
    """
    with ExitStack() as held:
        place, main, told = _place(output, folder), ranks().is_main_process, False
        while not agreed(main and _taken(place, held, POLL if told else 0)):  # every rank hears of every look
            if not told and main:
                say(f"{folder}: waits for {_holder(place)}, which works on the same")
            told = True
        if main:
            remove_leftovers(folder.parent, folder.name)
        yield


@contextmanager
def alone(output: Path, folder: Path) -> Iterator[None]:
    """Hold the lock of a stored folder, one process and one rank after the other."""
    with FileLock(f"{_place(output, folder)}.lock"):
        remove_leftovers(folder.parent, folder.name)
        yield


def _place(output: Path, folder: Path) -> Path:
    place = output / ".locks" / folder.relative_to(output)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _taken(place: Path, held: ExitStack, seconds: float = 0) -> bool:
    try:
        held.enter_context(FileLock(f"{place}.lock").acquire(timeout=seconds))
    except Timeout:
        return False
    write_json(place.with_name(f"{place.name}.json"), {"pid": os.getpid(), "host": platform.node()})
    return True


def _holder(place: Path) -> str:
    holder = read_json(place.with_name(f"{place.name}.json"))
    host = holder.get("host", platform.node())
    where = "" if host == platform.node() else f" on {host}"
    return f"process {holder['pid']}{where}" if "pid" in holder else "another process"
