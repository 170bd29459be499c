"""The thread that tells MLflow: nobody waits for it, and at the end only as long as MLflow answers."""

import logging
import threading
import time
from pathlib import Path

from anastyle.mlflow_link import Link
from anastyle.mlflow_runs import push

PATIENCE = 1.0  # seconds without an answer of a server, over which nobody waits at the end
LOCAL_PATIENCE = 60.0  # a file on this machine: its tables take a while, and other processes their turns

log = logging.getLogger("anastyle")


class Sender:
    """Pushes the folders it was given, in turn, until there is nothing to tell; what failed is tried again later.

    There is no queue that could grow: a folder is waiting or it is not, and what it holds lies on the disk.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self._changed = threading.Condition()
        self._waiting: dict[Path, None] = {}
        self._busy = self._closed = self._warned = False
        self._thread: threading.Thread | None = None

    def post(self, folder: Path) -> None:
        """Have a folder pushed, soon."""
        if not self.link.enabled:
            return
        with self._changed:
            self._waiting[folder] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="anastyle-mlflow", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self) -> bool:
        """Wait until all is told; False once MLflow failed, or did not answer for a moment."""
        patience = LOCAL_PATIENCE if self.link.local else PATIENCE
        with self._changed:
            began, failures = time.monotonic(), self.link.outages
            self.link.hurry()
            self._changed.notify_all()
            while self._waiting or self._busy:
                left = max(began, self.link.heard) + patience - time.monotonic()
                if left <= 0 or self.link.outages > failures:
                    return False
                self._changed.wait(min(left, 0.1))
        return True

    def close(self) -> bool:
        """End the thread after what it is at; say whether all was told."""
        told = self.drain()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        return told

    def _work(self) -> None:
        while (folder := self._next()) is not None:
            done = push(folder, self.link) is not None
            self._warn()
            with self._changed:
                self._busy = False
                if not done:
                    self._waiting[folder] = None
                self._changed.notify_all()

    def _warn(self) -> None:
        if self.link.failures and not self._warned:
            self._warned = True
            log.warning(
                "MLflow at %s failed: %s\n  The run goes on: metrics.jsonl is complete, and `anastyle sync` or the "
                "same command again sends what is missing.", self.link.address, self.link.reason,
            )  # fmt: skip

    def _next(self) -> Path | None:
        with self._changed:
            while not self._closed:
                if self._waiting and not self.link.waits:
                    folder = next(iter(self._waiting))
                    del self._waiting[folder]
                    self._busy = True
                    return folder
                self._changed.wait(self.link.waits or None)
        return None
