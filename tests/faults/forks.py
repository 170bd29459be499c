"""Jobs in a fork of this process that can be killed: by their parent, or by themselves at a change of the disk."""

import json
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

CHANGES = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "truncate")  # functions of os
PLACE = 32  # bytes for the name of what a child is at, behind the count of its changes of the disk
AWAKE = ("anastyle", "anastyle_plugins", "torch", "sympy", "diffusers", "transformers", "peft", "accelerate",
         "sklearn", "scipy", "webdataset", "matplotlib", "PIL")  # fmt: skip

Strike = Callable[[int], None]


class Child:
    """A fork that does one job: what it is at, and how many times it has changed the disk."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8 + PLACE)

    @property
    def changes(self) -> int:
        """Count the changes of the disk."""
        return struct.unpack("q", self._shared[:8])[0]

    @property
    def at(self) -> str:
        """Say what the child is at, or was when it died."""
        return self._shared[8:].rstrip(b"\0").decode()

    def run(self, job: Callable[[], int | None], log: Path, strike: Strike = lambda pid: None, *, fatal: int = 0,
            before: bool = True) -> int:  # fmt: skip
        """Do a job and return how it ended: an exit code, or minus a signal.

        Arguments:
            log: takes what the child prints.
            strike: what the parent does meanwhile; gets the child's process id.
            fatal: the number of the change of the disk that the child dies at; 0: none.
            before: die before it takes place, not after.
        """
        self._shared[:] = bytes(8 + PLACE)
        sys.stdout.flush(), sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._live(job, log, fatal, before)
        strike(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def noting(self, owner: Any, name: str, title: str) -> None:
        """Have ``at`` say ``title`` while a function of a module or a class runs."""
        function = getattr(owner, name)

        @wraps(function)
        def noted(*arguments: Any, **options: Any) -> Any:
            outer = self._shared[8:]
            self._shared[8:] = title.encode().ljust(PLACE, b"\0")
            try:
                return function(*arguments, **options)
            finally:
                self._shared[8:] = outer

        setattr(owner, name, noted)

    def _live(self, job: Callable[[], int | None], log: Path, fatal: int, before: bool) -> None:
        code = 1
        try:
            with log.open("ab") as file:
                for stream in (1, 2):
                    os.dup2(file.fileno(), stream)
            for name in CHANGES:
                setattr(os, name, self._counted(getattr(os, name), fatal, before))
            code = job() or 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            with suppress(Exception):
                sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)

    def _counted(self, change: Callable, fatal: int, before: bool) -> Callable:
        @wraps(change)
        def changing(*arguments: Any, **options: Any) -> Any:
            number = self.changes + 1
            self._shared[:8] = struct.pack("q", number)
            if number == fatal and before:
                os.kill(os.getpid(), signal.SIGKILL)
            done = change(*arguments, **options)
            if number == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return changing


def after(seconds: float, number: int = signal.SIGKILL) -> Strike:
    """Return what sends a signal to a child after a while, if it still lives then."""

    def strike(pid: int) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            time.sleep(max(min(0.01, end - time.monotonic()), 0))
        os.kill(pid, number)

    return strike


def write_awake(file: Path) -> None:
    """Write down which libraries a child has woken."""
    file.write_text(json.dumps([name for name in sys.modules if name.split(".")[0] in AWAKE]))


def wake(file: Path) -> None:
    """Import what a child wrote down, so that the next ones find it awake."""
    for name in json.loads(file.read_text()):
        with suppress(Exception):
            import_module(name)
