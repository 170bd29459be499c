"""What the machine does while a run goes on: MLflow's own samplers, into a file that is sent like every other."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from anastyle.jsonlines import JsonLines
from anastyle.mlflow_link import wake_mlflow

EVERY = 10.0  # seconds, MLflow's default


class SystemMetrics:
    """Samples processor, memory, disk, network and GPU into ``system.jsonl`` until it is stopped.

    ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` says how often, ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false`` never.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = JsonLines(folder / "system.jsonl")
        self._lines.truncate()
        self._stop = threading.Event()
        if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in ("true", "1"):
            threading.Thread(target=self._work, name="anastyle-system-metrics", daemon=True).start()

    def stop(self) -> None:
        """Take no more samples."""
        self._stop.set()

    def _work(self) -> None:
        step = sum(1 for _ in self._lines.read())
        every = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or EVERY)
        samplers = _samplers()
        while not self._stop.wait(every):
            sample: dict[str, Any] = {}
            for sampler in samplers:
                sampler.collect_metrics()
                sample |= sampler.aggregate_metrics()
                sampler.clear_metrics()
            try:
                named = {f"system/{name}": value for name, value in sample.items()}
                self._lines.append({"step": step, "time": round(time.time() * 1000), **named})
            except OSError:  # a full disk is the run's to report
                continue
            step += 1


def _samplers() -> list[Any]:
    wake_mlflow()
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    samplers: list[Any] = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        with suppress(Exception):  # no network in this container, no nvidia-ml-py, no card
            samplers.append(kind())
    return samplers
