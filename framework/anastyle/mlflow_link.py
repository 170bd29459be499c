"""The way to MLflow, under a guard: what fails is counted, and left alone for a while."""

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock, Timeout

from anastyle.passwords import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

RETRY_AFTER = 60.0  # seconds without a server after it failed
SOON = 1.0  # seconds until the next look at a file that another process holds
REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}  # MLflow is there, and dislikes this one thing
CORE = re.compile(r"\[Errno -?\d+\] [^'\")]+|[Rr]ead timed out")  # of what urllib3 says in three lines
TELEMETRY = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")
QUIET = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def wanted() -> bool:
    """Say whether MLflow takes part, by ``ANASTYLE_TRACKING``."""
    return os.environ.get("ANASTYLE_TRACKING", "on").lower() not in {"off", "0", "false", "no"}


def wake_mlflow() -> None:
    """Import MLflow with its telemetry off, unless somebody has decided on that, and without long waits."""
    if not any(name in os.environ for name in TELEMETRY):
        os.environ.update(dict.fromkeys(TELEMETRY, "true"))
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # what fails is said once, by us


class Link:
    """MLflow behind a guard: what fails is counted, and left alone for a while.

    Arguments:
        output: the folder all studies share; its ``mlflow.db`` is the default store.
        server: a tracking URI; by default ``MLFLOW_TRACKING_URI``, else the default store.
    """

    def __init__(self, output: Path, experiment: str, enabled: bool = True, server: str | None = None) -> None:
        self.output, self.experiment, self.enabled = output, experiment, enabled
        self.named = server or os.environ.get("MLFLOW_TRACKING_URI") or None
        self.server = self.named or f"sqlite:///{(output / 'mlflow.db').as_posix()}"
        self.local = self.server.startswith("sqlite:")
        self.failures: Counter[Path] = Counter()
        self.reason = ""
        self.outages = 0  # failures of MLflow itself, not refusals
        self.heard = time.monotonic()  # when MLflow last answered
        self.open: set[str] = set()  # runs that were seen to be there
        self._retry_at = 0.0
        self._ready: tuple[MlflowClient, str] | None = None

    @property
    def address(self) -> str:
        """The server, to write down."""
        return without_password(self.server)

    @property
    def waits(self) -> float:
        """Seconds until it is worth a try; 0: now."""
        return max(0.0, self._retry_at - time.monotonic())

    def hurry(self) -> None:
        """Try at once, whatever failed before."""
        self._retry_at = 0.0

    def pause(self, seconds: float) -> None:
        """Leave MLflow alone for a while."""
        self._retry_at = time.monotonic() + seconds

    def attempt(self, folder: Path, call: "Callable[[MlflowClient, str], T]") -> T | None:
        """Return ``call(client, experiment id)`` for a run's folder; None: it failed, now or a moment ago."""
        if not self.enabled or self.waits:
            return None
        try:
            with self._turn():
                self._ready = self._ready or self._connect()
                return call(*self._ready)
        except Timeout:  # another process has the turn
            self.pause(SOON)
            return None
        except Exception as error:
            self.count(folder, error)
            if "locked" in str(error):
                self.pause(SOON)
            else:
                self.outages += 1
                self.pause(RETRY_AFTER)
            return None

    def ask(self, call: Callable[[], T]) -> T:
        """Return what a request returns, and note that MLflow answered."""
        answer = call()
        self.heard = time.monotonic()
        return answer

    def offer(self, folder: Path, call: Callable[[], object]) -> bool:
        """Make a request that MLflow may refuse, which is counted; say whether it took it."""
        try:
            self.ask(call)
        except Exception as error:
            if getattr(error, "error_code", None) not in REFUSALS:
                raise
            self.heard = time.monotonic()
            self.count(folder, error)
            return False
        return True

    def count(self, folder: Path, error: Exception) -> None:
        """Count a failure, and keep the reason of the last."""
        self.failures[folder] += 1
        text = without_password(f"{type(error).__name__}: {error}".splitlines()[0])
        core = CORE.search(text)
        self.reason = core[0] if core else text[:300]

    def _turn(self) -> AbstractContextManager[object]:
        """Take turns on a database file: two processes would both create its tables, or lock each other out."""
        path = self.server.removeprefix("sqlite:///")
        if path == self.server:
            return nullcontext()
        database = Path(path).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(database.with_name(f".{database.name}.lock"), timeout=60)

    def _connect(self) -> "tuple[MlflowClient, str]":
        wake_mlflow()
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self.server)
        found = self.ask(lambda: client.get_experiment_by_name(self.experiment))
        if found is None:
            serves = self.server.startswith(("http:", "https:"))  # a bare database would put files where we stand
            place = None if serves else (self.output / "mlartifacts").as_uri()
            try:
                return client, self.ask(lambda: client.create_experiment(self.experiment, artifact_location=place))
            except MlflowException as error:  # somebody else was faster
                found = client.get_experiment_by_name(self.experiment)
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return client, found.experiment_id
