"""What runs leave behind to be compared: JSON lines first, then MLflow.

``metrics.jsonl`` in a run's folder is the source of truth, and the queue from which MLflow is fed in the background:
what was not sent before a kill or an outage is sent by the next run of the same command, or by ``anastyle sync``. Only
rank 0 tracks. A tracking server that fails or is slow costs one warning and a count in ``status.json``, no training and
no time.

MLflow writes to ``<output>/mlflow.db`` unless ``MLFLOW_TRACKING_URI`` names a server; ``ANASTYLE_TRACKING=off`` leaves
it out.
"""

import hashlib
import io
import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from anastyle.files import write_whole
from anastyle.jsonlines import JsonLines, update_status
from anastyle.mlflow_link import Link, wake_mlflow, wanted
from anastyle.outbox import Outbox, flatten, plain_name
from anastyle.passwords import without_passwords
from anastyle.sender import Sender
from anastyle.speaker import is_main
from anastyle.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from PIL.Image import Image

FLUSH_EVERY = 5.0  # seconds
log = logging.getLogger("anastyle")


class Study:
    """A study's parent run, and its runs; a context manager.

    Arguments:
        output: the folder all studies share, ``runs``.
        name: the study's name; with the same name the same MLflow runs go on.
        config: what the experiment file says; plain values.
        enabled: does MLflow take part? By default what ``ANASTYLE_TRACKING`` says.
    """

    def __init__(self, output: Path, name: str, config: dict, *, enabled: bool | None = None) -> None:
        self.output, self.name = Path(output).resolve(), name
        self.folder = self.output / name
        self._sender: Sender | None = None
        if not is_main():
            return
        if enabled is None:
            enabled = wanted()
        self.folder.mkdir(parents=True, exist_ok=True)
        link = Link(self.output, os.environ.get("MLFLOW_EXPERIMENT_NAME") or name, enabled)
        if enabled:
            wake_mlflow()  # here, because two threads that import at once can trip over each other
        self._sender = Sender(link)
        self._outbox = Outbox(self.folder)
        self._outbox.start(identity=name, name=name, tags={}, **_aim(link))
        self._runs: list[Path] = [self.folder]
        _write_yaml(self.folder / "study.yaml", config)
        self.artifact(self.folder / "study.yaml")

    def run(self, variant: str, seed: int, config: dict, *, fresh: bool = False) -> "Tracker":
        """Return the tracker of one variant and seed.

        A run of the same configuration goes on where it was, in the same MLflow run. One whose configuration changed,
        or that is to be ``fresh``, begins a new one; its earlier numbers stay in ``metrics.previous.jsonl``.
        """
        folder = self.folder / variant / f"seed-{seed}"
        if self._sender is None:
            return Silent(folder)
        folder.mkdir(parents=True, exist_ok=True)
        identity = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
        outbox = Outbox(folder)
        if fresh or outbox.read().get("identity", identity) != identity:
            self._sender.drain()
            outbox.forget()
            for name in ("metrics", "system"):
                if (file := folder / f"{name}.jsonl").exists():
                    os.replace(file, folder / f"{name}.previous.jsonl")
        tags = {"variant": variant, "seed": str(seed)}
        name = f"{self.name}/{variant}/s{seed}"
        outbox.start(identity=identity, name=name, tags=tags, child=True, **_aim(self._sender.link))
        self._runs.append(folder)
        tracker = Tracker(folder, outbox, self._sender)
        _write_yaml(folder / "config.yaml", config)
        tracker.params({**config, "config": {"sha256": identity}})
        tracker.artifact(folder / "config.yaml")
        return tracker

    def artifact(self, path: Path) -> None:
        """Keep a file (the table, the report) with the parent run."""
        if self._sender is not None:
            self._outbox.artifact(path)
            self._sender.post(self.folder)

    def close(self, status: str = "finished") -> None:
        """End the parent run: ``finished``, ``failed`` or ``stopped``; wait for MLflow as long as it answers."""
        if self._sender is None:
            return
        self._outbox.end(status)
        self._sender.post(self.folder)
        if not self._sender.close():
            log.warning("MLflow was not told everything yet; `anastyle sync %s` sends the rest.", self.folder)
        for folder in self._runs:
            update_status(folder, tracking_failures=self._sender.link.failures[folder])

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self.close(_ending(error))


class Tracker:
    """Where one run writes its numbers and pictures; a context manager."""

    def __init__(self, folder: Path, outbox: Outbox | None = None, sender: Sender | None = None) -> None:
        self.folder = folder
        self._lines = JsonLines(folder / "metrics.jsonl")
        self._known: dict[str, set[int]] = {}
        self._flushed = time.monotonic()
        self._outbox, self._sender = outbox, sender
        if outbox is None or sender is None:
            return
        self._system = SystemMetrics(folder) if sender.link.enabled else None
        self._lines.truncate()
        for line, _ in self._lines.read():
            self._news(line, line["step"])

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Write metrics at a step. One that has a value at this step already keeps it, so nothing is doubled."""
        self._write(metrics, step, round(time.time() * 1000))
        if time.monotonic() - self._flushed >= FLUSH_EVERY:
            self.flush()

    def replay(self, path: Path) -> None:
        """Write the metrics of a stage that trained elsewhere, or earlier, with their times; twice is as good as once.

        Arguments:
            path: a ``metrics.jsonl``: ``step``, ``time`` (ms) and metrics on each line.
        """
        for line, _ in JsonLines(path).read():
            self._write(line, line["step"], line["time"])
        self.flush()

    def image(self, key: str, image: "Image", step: int = 0) -> None:
        """Keep a picture under ``images/`` and in MLflow, which lines runs up by ``key``; an equal one only once."""
        if self._outbox is None:
            return
        key = "/".join(part for part in plain_name(key).split("/") if part.strip(". "))
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        file = self.folder / "images" / f"{key}-{step}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, buffer.getvalue())
        self._outbox.image(key, step, file, hashlib.sha256(buffer.getvalue()).hexdigest())
        self.flush()

    def params(self, values: dict) -> None:
        """Set parameters, nested ones under dotted names."""
        if self._outbox is not None:
            self._outbox.params(flatten(values))
            self.flush()

    def dataset(self, name: str, fingerprint: str, source: str, profile: dict[str, Any]) -> None:
        """Name the data the run reads: its fingerprint, where it lies, and counts or other small facts about it."""
        if self._outbox is not None:
            self._outbox.dataset(name, fingerprint, source, profile)
            self.flush()

    def artifact(self, path: Path) -> None:
        """Keep a file with the run."""
        if self._outbox is not None:
            self._outbox.artifact(path)
            self.flush()

    def flush(self) -> None:
        """Have MLflow told what is new; does not wait for it."""
        if self._sender is not None:
            self._sender.post(self.folder)
        self._flushed = time.monotonic()

    def close(self, status: str = "finished") -> None:
        """End the run: ``finished``, ``failed`` or ``stopped``."""
        if self._outbox is None:
            return
        if self._system is not None:
            self._system.stop()
        self._outbox.end(status)
        self.flush()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self.close(_ending(error))

    def _write(self, metrics: dict[str, float], step: int, milliseconds: int) -> None:
        if self._outbox is not None and (news := self._news(metrics, step)):
            self._lines.append({"step": step, "time": milliseconds, **news})

    def _news(self, metrics: dict[str, Any], step: int) -> dict[str, Any]:
        news = {}
        for name, value in metrics.items():
            steps = self._known.setdefault(name, set())
            if name not in ("step", "time") and step not in steps:
                steps.add(step)
                news[name] = value
        return news


class Silent(Tracker):
    """The tracker of every other rank: same interface, writes nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)


def _aim(link: Link) -> dict[str, Any]:
    return {"experiment": link.experiment, "server": link.address if link.named else None}


def _ending(error: BaseException | None) -> str:
    code = error.code if isinstance(error, SystemExit) else None
    if error is None or code == 0:
        return "finished"
    return "stopped" if isinstance(error, KeyboardInterrupt) or code in (130, 143) else "failed"


def _write_yaml(path: Path, value: dict) -> None:
    text = yaml.safe_dump(without_passwords(value), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
