"""What runs leave behind to be compared: JSON lines first, then MLflow.

``metrics.jsonl`` in a run's folder is the source of truth, and the queue from which MLflow is fed in batches: what was
not sent before a kill or an outage is sent by the next run of the same command. Only rank 0 tracks. A tracking server
that fails costs one warning and a count in ``status.json``, never a training.

MLflow writes to ``<output>/mlflow.db`` unless ``MLFLOW_TRACKING_URI`` names a server; ``ANASTYLE_TRACKING=off`` leaves
it out.
"""

import hashlib
import io
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from anastyle.jsonlines import JsonLines, read_json, update_status
from anastyle.mlflow_runs import Link, Run, flatten, plain_name

if TYPE_CHECKING:
    from PIL.Image import Image

FLUSH_EVERY = 5.0  # seconds


def is_main() -> bool:
    """Say whether this process is rank 0, the one that writes and shows."""
    return int(os.environ.get("RANK") or 0) == 0


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
        self._run: Run | None = None
        if not is_main():
            return
        if enabled is None:
            enabled = os.environ.get("ANASTYLE_TRACKING", "on").lower() not in {"off", "0", "false", "no"}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._link = Link(self.output, os.environ.get("MLFLOW_EXPERIMENT_NAME") or name, enabled)
        self._run = Run(self._link, self.folder / "mlflow.json", name, {}, identity=name)
        _write_yaml(self.folder / "study.yaml", config)
        self._run.artifact(self.folder / "study.yaml")

    def run(self, variant: str, seed: int, config: dict, *, fresh: bool = False) -> "Tracker":
        """Return the tracker of one variant and seed.

        A run of the same configuration goes on where it was, in the same MLflow run. One whose configuration changed,
        or that is to be ``fresh``, begins a new one; its earlier numbers stay in ``metrics.previous.jsonl``.
        """
        folder = self.folder / variant / f"seed-{seed}"
        if self._run is None:
            return Silent(folder)
        folder.mkdir(parents=True, exist_ok=True)
        identity = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
        file = folder / "mlflow.json"
        if fresh or read_json(file).get("identity", identity) != identity:
            file.unlink(missing_ok=True)
            if (folder / "metrics.jsonl").exists():
                os.replace(folder / "metrics.jsonl", folder / "metrics.previous.jsonl")
        name = f"{self.name}/{variant}/s{seed}"
        tags = {"variant": variant, "seed": str(seed)}
        tracker = Tracker(folder, Run(self._link, file, name, tags, identity=identity, parent=self._run))
        _write_yaml(folder / "config.yaml", config)
        tracker.params(config)
        tracker.artifact(folder / "config.yaml")
        return tracker

    def artifact(self, path: Path) -> None:
        """Keep a file (the table, the report) with the parent run."""
        if self._run is not None:
            self._run.artifact(path)

    def close(self, status: str = "finished") -> None:
        """End the parent run: ``finished``, ``failed`` or ``stopped``."""
        if self._run is not None:
            self._run.end(status)
            update_status(self.folder, tracking_failures=self._link.failures)

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self.close(_ending(error))


class Tracker:
    """Where one run writes its numbers and pictures; a context manager."""

    def __init__(self, folder: Path, run: "Run | None") -> None:
        self.folder = folder
        self._run = run
        self._lines = JsonLines(folder / "metrics.jsonl")
        self._known: dict[str, set[int]] = {}
        self._flushed = time.monotonic()
        if run is None:
            return
        self._failures = run.link.failures
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
        if self._run is None:
            return
        key = "/".join(part for part in plain_name(key).split("/") if part.strip(". "))
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        file = self.folder / "images" / f"{key}-{step}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(buffer.getvalue())
        self._run.image(key, image, step, hashlib.sha256(buffer.getvalue()).hexdigest())

    def params(self, values: dict) -> None:
        """Set parameters, nested ones under dotted names."""
        if self._run is not None:
            self._run.params(flatten(values))

    def artifact(self, path: Path) -> None:
        """Keep a file with the run."""
        if self._run is not None:
            self._run.artifact(path)

    def flush(self) -> None:
        """Send MLflow what is new in ``metrics.jsonl``."""
        if self._run is not None:
            self._run.feed(self._lines)
        self._flushed = time.monotonic()

    def close(self, status: str = "finished") -> None:
        """End the run: ``finished``, ``failed`` or ``stopped``."""
        if self._run is not None:
            self.flush()
            self._run.end(status)
            update_status(self.folder, tracking_failures=self._run.link.failures - self._failures)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self.close(_ending(error))

    def _write(self, metrics: dict[str, float], step: int, milliseconds: int) -> None:
        if self._run is not None and (news := self._news(metrics, step)):
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
        super().__init__(folder, None)


def _ending(error: BaseException | None) -> str:
    code = error.code if isinstance(error, SystemExit) else None
    if error is None or code == 0:
        return "finished"
    return "stopped" if isinstance(error, KeyboardInterrupt) or code in (130, 143) else "failed"


def _write_yaml(path: Path, value: dict) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), encoding="utf-8")
