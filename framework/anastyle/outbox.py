"""What a run has to tell MLflow besides its numbers: ``outbox.json`` in its folder, for whoever sends it."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock

from anastyle.jsonlines import read_json, write_json
from anastyle.passwords import without_password

LONGEST = 250  # characters of a parameter, MLflow's limit of old


class Outbox:
    """What a run is to tell MLflow besides its numbers, kept in its folder for whoever sends it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "outbox.json"

    def read(self) -> dict[str, Any]:
        """Return what is to be told; empty where nothing is."""
        return read_json(self.file)

    def start(self, **about: Any) -> None:
        """Say what run this is; one that is known keeps its key, its beginning and what it has to tell."""
        with self._changed() as content:
            content.setdefault("key", uuid4().hex)
            content.setdefault("began", _now())
            content.update(about, status="running", ended=None)

    def end(self, status: str) -> None:
        """Say how the run ended: finished, failed or stopped."""
        with self._changed() as content:
            content.update(status=status, ended=_now())

    def params(self, values: dict[str, str]) -> None:
        """Set flat parameters."""
        with self._changed() as content:
            content.setdefault("params", {}).update(values)

    def artifact(self, path: Path) -> None:
        """Keep a file with the run."""
        name = _relative(path, self.folder)
        with self._changed() as content:
            if name not in content.setdefault("files", []):
                content["files"].append(name)

    def image(self, key: str, step: int, file: Path, digest: str) -> None:
        """Keep a picture of a key and a step; a later one takes its place."""
        with self._changed() as content:
            entry = {"key": key, "step": step, "file": _relative(file, self.folder), "sha256": digest}
            content.setdefault("images", {})[f"{key}@{step}"] = entry

    def dataset(self, name: str, fingerprint: str, source: str, profile: dict[str, Any]) -> None:
        """Name the data the run reads."""
        with self._changed() as content:
            content["dataset"] = {"name": name, "digest": fingerprint[:32], "source": source, "profile": profile}

    def forget(self) -> None:
        """Become another run: what MLflow was told belongs to the one before."""
        self.file.unlink(missing_ok=True)

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        with FileLock(self.folder / ".outbox.lock", timeout=60):  # several processes may share a study
            content = self.read()
            before = repr(content)
            yield content
            if repr(content) != before:
                write_json(self.file, content)


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """Return the leaves of nested mappings under dotted names, cut to what MLflow takes, without passwords."""
    if isinstance(config, dict) and (config or not prefix):
        leaves: dict[str, str] = {}
        for name, value in config.items():
            leaves |= flatten(value, f"{prefix}.{name}" if prefix else str(name))
        return leaves
    return {plain_name(prefix)[:LONGEST]: without_password(str(config))[:LONGEST]}


def plain_name(name: str) -> str:
    """Return a name of the letters MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _now() -> int:
    return round(time.time() * 1000)
