"""A real MLflow server of the test's own: on a loopback port, artifacts served from a folder, killed and started again.

``from tools.mlflow_server import MLflowServer``; the store is any that MLflow takes, a PostgreSQL database for one.
"""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

from tools.postgresql import free_port

PATIENCE = 180.0  # seconds to come up, on a machine that has much else to do


class MLflowServer:
    """``mlflow server`` in processes of its own.

    Attributes:
        url: what ``MLFLOW_TRACKING_URI`` is set to.
    """

    def __init__(self, store: str, folder: Path) -> None:
        self.store, self.folder, self.port = store, folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        words = ["server", "--backend-store-uri", self.store, "--artifacts-destination", str(self.folder / "artifacts"),
                 "--serve-artifacts", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]  # fmt: skip
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "mlflow", *words], stdout=log, stderr=log,
                                             env=environment, start_new_session=True)  # fmt: skip
        until = time.monotonic() + PATIENCE
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "server.log").read_text()[-2000:])
            time.sleep(0.2)

    def answers(self) -> bool:
        """Say whether the server is up."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return response.status == 200
        except (URLError, OSError):
            return False

    def kill(self) -> None:
        """Kill the server and its workers at once."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait(30)
            self._process = None
