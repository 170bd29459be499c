"""SIGTERM and SIGINT as a wish, granted at the next step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stop:
    """Remembers the first SIGTERM or SIGINT inside its block; a second one does what it always does.

    ``code`` is 0, or the exit code the signal asks for: 143 or 130. If the block ends with a wish not yet granted,
    ``SystemExit`` grants it.
    """

    def __init__(self) -> None:
        self.code = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
        if error is None and self.code:
            raise SystemExit(self.code)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
