"""MLflow behind a guard: runs that go on under their id, fed in batches; a failure costs a warning, never a training.

MLflow is imported when the first run is opened.
"""

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from anastyle.jsonlines import JsonLines, read_json, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from PIL.Image import Image

Row = tuple[str, float, int, int]  # metric, value, milliseconds, step
T = TypeVar("T")
log = logging.getLogger("anastyle")

RETRY_AFTER = 60.0  # seconds without MLflow after it failed
REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}  # MLflow is there, and dislikes this one thing
CHUNK = 1000  # metrics in one request, MLflow's limit
PARAMS_CHUNK = 100  # likewise
LONGEST = 250  # characters of a parameter
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """Return the leaves of nested mappings under dotted names, cut to what MLflow takes."""
    if isinstance(config, dict) and (config or not prefix):
        leaves: dict[str, str] = {}
        for name, value in config.items():
            leaves |= flatten(value, f"{prefix}.{name}" if prefix else str(name))
        return leaves
    return {plain_name(prefix)[:LONGEST]: str(config)[:LONGEST]}


class Link:
    """MLflow behind a guard: what fails is counted, warned of once, and left alone for a while."""

    def __init__(self, output: Path, experiment: str, enabled: bool) -> None:
        self.output, self.experiment, self.enabled = output, experiment, enabled
        self.server = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(output / 'mlflow.db').as_posix()}"
        self.failures = 0
        self._retry_at = 0.0
        self._ready: tuple[MlflowClient, str] | None = None

    @property
    def address(self) -> str:
        """The server, to write down."""
        return without_password(self.server)

    def attempt(self, call: "Callable[[MlflowClient, str], T]") -> T | None:
        """Return ``call(client, experiment id)``, None when MLflow is left out, failed now or failed a moment ago."""
        if not self.enabled or time.monotonic() < self._retry_at:
            return None
        try:
            self._ready = self._ready or self._connect()
            return call(*self._ready)
        except Exception as error:
            self.failures += 1
            if getattr(error, "error_code", None) not in REFUSALS:
                self._retry_at = time.monotonic() + RETRY_AFTER
            if self.failures == 1:
                text = without_password(f"{type(error).__name__}: {error}".splitlines()[0])[:300]
                log.warning(
                    "MLflow at %s failed: %s\n  The run goes on: metrics.jsonl is complete, and running the same "
                    "command again sends what is missing.", self.address, text,
                )  # fmt: skip
            return None

    def _connect(self) -> "tuple[MlflowClient, str]":
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        from filelock import FileLock
        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.output.mkdir(parents=True, exist_ok=True)
        local = self.server.startswith("sqlite:")
        with FileLock(self.output / ".mlflow.lock", timeout=120):  # two processes would both create the tables
            client = MlflowClient(self.server)
            found = client.get_experiment_by_name(self.experiment)
            if found is None:
                place = (self.output / "mlartifacts").as_uri() if local else None
                return client, client.create_experiment(self.experiment, artifact_location=place)
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            return client, found.experiment_id


class Run:
    """One MLflow run, opened when first needed; its id is kept in a file, so that the same run goes on."""

    def __init__(
        self, link: Link, file: Path, name: str, tags: dict[str, str], *, identity: str, parent: "Run | None" = None
    ) -> None:
        self.link, self.name, self.tags, self.parent, self._file = link, name, tags, parent, file
        self._open = False
        self.state = read_json(file)
        if self.state.get("server") != link.address:
            self.state = {}
        self.state |= {"identity": identity, "server": link.address}
        self.save()

    def save(self) -> None:
        """Write down the run's id and what it was sent."""
        write_json(self._file, self.state)

    def send(self, call: "Callable[[MlflowClient, str], object]") -> bool:
        """Call with a client and the run's id; say whether MLflow took it."""

        def guarded(client: "MlflowClient", experiment: str) -> bool:
            call(client, self._id(client, experiment))
            return True

        return bool(self.link.attempt(guarded))

    def params(self, values: dict[str, str]) -> None:
        """Set flat parameters."""
        items = list(values.items())
        for start in range(0, len(items), PARAMS_CHUNK):
            part = items[start : start + PARAMS_CHUNK]
            self.send(lambda client, id, part=part: client.log_batch(id, params=_params(part)))

    def artifact(self, path: Path) -> None:
        """Keep a file with the run."""
        self.send(lambda client, id: client.log_artifact(id, str(path)))

    def feed(self, lines: JsonLines) -> None:
        """Send the lines that were not sent, a chunk at a time, and remember how far it got."""
        if not self._ready():
            return
        rows: list[Row] = []
        end = sent = self.state.get("sent", 0)
        for line, end in lines.read(sent):
            rows += [(name, value, line["time"], line["step"]) for name, value in line.items()
                     if name not in ("step", "time") and value is not None]  # fmt: skip
            if len(rows) >= CHUNK:
                if not self._feed(rows, end):
                    return
                rows, sent = [], end
        if end > sent:
            self._feed(rows, end)

    def image(self, key: str, image: "Image", step: int, digest: str) -> None:
        """Keep a picture, unless the one with this digest is there."""
        name = f"{key}@{step}"
        if not self._ready() or self.state.get("images", {}).get(name) == digest:
            return
        if self.send(lambda client, id: client.log_image(id, image, key=key, step=step)):
            self.state.setdefault("images", {})[name] = digest
            self.save()

    def _ready(self) -> bool:
        return self.send(lambda client, id: None)

    def _feed(self, rows: list[Row], end: int) -> bool:
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            if not self.send(lambda client, id, part=part: client.log_batch(id, metrics=_metrics(part))):
                return False
        self.state["sent"] = end
        self.save()
        return True

    def end(self, status: str) -> None:
        """Close the run, if it was ever opened."""
        word = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}[status.lower()]
        if self._open:
            self.send(lambda client, id: client.set_terminated(id, word))
            self._open = False

    def _id(self, client: "MlflowClient", experiment: str) -> str:
        if self._open:
            return self.state["run_id"]
        tags = {**self.tags, "mlflow.runName": self.name}
        if self.parent is not None:
            tags["mlflow.parentRunId"] = self.parent._id(client, experiment)
        if not self._alive(client):
            run_id = client.create_run(experiment, run_name=self.name, tags=tags).info.run_id
            self.state = {"identity": self.state["identity"], "server": self.link.address, "run_id": run_id}
            self.save()
        else:
            client.update_run(self.state["run_id"], status="RUNNING")
            for name, value in tags.items():
                client.set_tag(self.state["run_id"], name, value)
        self._open = True
        return self.state["run_id"]

    def _alive(self, client: "MlflowClient") -> bool:
        from mlflow.exceptions import MlflowException

        if "run_id" not in self.state:
            return False
        try:
            return client.get_run(self.state["run_id"]).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise


def _metrics(rows: list[Row]) -> list:
    from mlflow.entities import Metric

    return [Metric(plain_name(name)[:LONGEST], value, milliseconds, step) for name, value, milliseconds, step in rows]


def _params(rows: list[tuple[str, str]]) -> list:
    from mlflow.entities import Param

    return [Param(name, value) for name, value in rows]


def without_password(text: str) -> str:
    """Return a text whose URLs name no user and no password."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def plain_name(name: str) -> str:
    """Return a name of the letters MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)
