"""SIGTERM, SIGINT and the end of the launcher as a wish, granted at the next step; elsewhere, as an exception."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

PARENT = os.getppid()
LAUNCHERS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")  # what they leave in the environment
PR_SET_PDEATHSIG = 1
ECHO = 1.0  # seconds in which one wish may come again: from a terminal and a launcher, or as each of its threads ends


class Stop:
    """Remembers the first SIGTERM or SIGINT inside its block; a second one ends the process at once.

    ``code`` is 0, or the exit code the signal asks for: 143 or 130. If the block ends with a wish not yet granted,
    ``SystemExit`` grants it.

    A launcher that dies takes its processes along: ``accelerate launch`` hands no signal on, so its end is a SIGTERM.
    """

    def __init__(self) -> None:
        self.code = 0
        self._first = 0.0  # when the wish came
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
            follow_launcher()
            if launcher_gone():
                self.code = 143
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
        if error is None and self.code:
            raise SystemExit(self.code)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if not self.code:
            self.code, self._first = 128 + number, time.monotonic()
            if not launched():
                self._default()
        elif not launcher_gone() and time.monotonic() - self._first > ECHO:
            self._default()
            signal.raise_signal(number)

    def _default(self) -> None:
        for number in self._before:
            signal.signal(number, signal.SIG_DFL)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}


def launched() -> bool:
    """Say whether a launcher started this process."""
    return any(name in os.environ for name in LAUNCHERS)


def launcher_gone() -> bool:
    """Say whether the launcher that started this process has ended."""
    return launched() and os.getppid() != PARENT


def follow_launcher() -> None:
    """Have the system send SIGTERM when the launcher ends; on Linux alone."""
    if launched() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as SIGINT does, by an exception, ``SystemExit(143)``; a second one, at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
