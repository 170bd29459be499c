"""Small JSON files that a kill leaves readable: whole ones, and ones that grow a line at a time."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anastyle.files import write_whole


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_whole(path, json.dumps(value, indent=1).encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty when there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def update_status(folder: Path, **fields: Any) -> None:
    """Set fields of a folder's ``status.json``, the others stay."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "status.json", {**read_json(folder / "status.json"), **fields})


class JsonLines:
    """A file of JSON objects, one a line. It ends before the first line that is torn.

    Lines that a full disk does not take are kept, and written before the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[bytes] = []

    def read(self, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each line from a byte position on, and the position after it."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(start)
            for line in stream:
                try:
                    value = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    value = None
                if not isinstance(value, dict):
                    return
                start += len(line)
                yield value, start

    def append(self, line: dict[str, Any]) -> None:
        """Add a line; numbers that are not finite become null."""
        plain = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                 for name, value in line.items()}  # fmt: skip
        self._waiting.append(json.dumps(plain, allow_nan=False).encode() + b"\n")
        with contextlib.suppress(OSError):
            self._write()

    def truncate(self, step: int | None = None) -> None:
        """Drop what is torn and, if asked, everything from the first line beyond ``step`` on."""
        end = 0
        for line, after in self.read():
            if step is not None and line["step"] > step:
                break
            end = after
        if self.path.exists():
            os.truncate(self.path, end)

    def sync(self) -> None:
        """Have the disk hold what was written.

        Raises:
            OSError: there is no room for all of it.
        """
        self._write()
        if self.path.exists():
            with self.path.open("ab") as stream:
                os.fsync(stream.fileno())

    def _write(self) -> None:
        """Write the lines that wait, all or none."""
        if not self._waiting:
            return
        end = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as stream:
                stream.writelines(self._waiting)
        except OSError:
            if self.path.exists():
                os.truncate(self.path, end)
            raise
        self._waiting.clear()


def write_line(path: Path, metrics: dict[str, float]) -> None:
    """Write what a stage that trains nothing has to tell, as one line of metrics."""
    path.write_text(json.dumps({"step": 0, "time": round(time.time() * 1000), **metrics}) + "\n", encoding="utf-8")
