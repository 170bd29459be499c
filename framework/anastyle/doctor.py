"""What ``anastyle doctor`` does: is this machine fit for a run? One line for each thing; no network.

``ok`` is as it should be, ``note`` is good to know, ``problem`` wants mending; each comes with its way out.
Only a tracking server that ``MLFLOW_TRACKING_URI`` names is asked whether it is there, for two seconds.
"""

import os
import platform
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from anastyle.errors import PROBLEMS
from anastyle.mlflow_link import wanted
from anastyle.packages import Finding, below, drift, floors, installed, pairs, tested
from anastyle.passwords import without_password

GIB = 1 << 30
LEAST_FREE = GIB  # bytes on a disk
LITTLE_MEMORY = 4 * GIB
SERVER_PATIENCE = 2.0  # seconds
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


def examine(output: Path, say: Callable[[str], None]) -> int:
    """Say what there is to say of this machine; returns the exit code."""
    found = installed()
    checks: dict[str, Callable[[], list[Finding]]] = {
        "python": python,
        "packages": lambda: [*below(found, floors()), *pairs(found)],
        "versions": lambda: drift(found, tested()),
        "gpu": lambda: gpu(found),
        "cpu": cpu,
        "memory": memory,
        "output": lambda: disk(output),
        "weights": weights,
        "deepspeed": lambda: deepspeed(found),
        "mlflow": lambda: tracking(output),
    }
    counts = dict.fromkeys(("ok", "note", "problem"), 0)
    for name, check in checks.items():
        for state, text in check():
            counts[state] += 1
            say(f"{state:<8} {name:<9} {text}")
    problems, notes = counts["problem"], counts["note"]
    say(f"{problems or 'no'} problem{'' if problems == 1 else 's'}, {notes} note{'' if notes == 1 else 's'}")
    return PROBLEMS if problems else 0


def python() -> list[Finding]:
    """The interpreter and the system."""
    return [Finding("ok", f"{platform.python_version()} on {platform.platform(terse=True)}")]


def gpu(found: dict[str, str]) -> list[Finding]:
    """Every GPU: its name, its memory, and whether it computes in bfloat16."""
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    except Exception as error:  # a broken installation is what we are here to find
        return [Finding("problem", f"torch cannot be imported: {str(error).splitlines()[0]}. Install it anew.")]
    if not count and torch.version.cuda and shutil.which("nvidia-smi"):
        text = f"there is a driver, and torch {torch.__version__} finds no GPU: its CUDA {torch.version.cuda} may be"
        return [Finding("problem", f"{text} too new for the driver. See nvidia-smi, and CUDA_VISIBLE_DEVICES.")]
    if not count:
        return [Finding("note", f"none; torch {torch.__version__} computes on the CPU")]
    findings = []
    for number in range(count):
        free, total = torch.cuda.mem_get_info(number)
        bf16 = "bf16" if torch.cuda.get_device_capability(number) >= (8, 0) else "no bf16: precision fp16 or no"
        name = torch.cuda.get_device_name(number)
        findings.append(Finding("ok", f"{number}: {name}, {gib(free)} of {gib(total)} free, {bf16}"))
    if "nvidia-ml-py" not in found:
        findings.append(Finding("note", "MLflow shows GPU load with nvidia-ml-py: pip install nvidia-ml-py"))
    return findings


def cpu() -> list[Finding]:
    """Cores this process may use, and threads it was told to use."""
    cores, threads = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    if threads and threads.isdigit() and int(threads) > cores:
        text = f"OMP_NUM_THREADS={threads} on {cores} cores: threads will wait for each other. Unset it."
        return [Finding("note", text)]
    return [Finding("ok", f"{cores} cores" + (f", OMP_NUM_THREADS={threads}" if threads else ""))]


def memory() -> list[Finding]:
    """Main memory, and a container's limit on it."""
    machine = psutil.virtual_memory()
    limit = container_limit(Path("/sys/fs/cgroup/memory.max"))
    total, available = min(machine.total, limit), min(machine.available, limit)
    text = f"{gib(available)} of {gib(total)} free" + (", a container's limit" if limit < machine.total else "")
    if available < LITTLE_MEMORY:
        return [Finding("note", f"{text}: enough for small networks only")]
    return [Finding("ok", text)]


def container_limit(file: Path) -> float:
    """Return the bytes a container may use; infinity where there is no limit."""
    try:
        return float(file.read_text(encoding="utf-8").strip().replace("max", "inf"))
    except (OSError, ValueError):
        return float("inf")


def disk(folder: Path) -> list[Finding]:
    """Room and permission to write where something is to be kept."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        return [Finding("problem", f"{folder}: {there} cannot be written to. Choose another folder.")]
    free = shutil.disk_usage(there).free
    text = f"{folder}: {gib(free)} free"
    return [Finding("problem", f"{text}. Make room.") if free < LEAST_FREE else Finding("ok", text)]


def weights() -> list[Finding]:
    """Where pretrained weights are looked for, and whether the hub may be asked for more."""
    from huggingface_hub import constants

    offline = "offline" if constants.HF_HUB_OFFLINE else "`anastyle fetch` may download"
    findings = []
    if home := os.environ.get("ANASTYLE_WEIGHTS"):
        there = Path(home).expanduser().is_dir()
        text = f"ANASTYLE_WEIGHTS={home}"
        findings.append(
            Finding("ok", text) if there else Finding("problem", f"{text}: no such folder. Mend or unset it.")
        )
    cache = [
        Finding(state, f"the hub's cache, {offline}: {text}") for state, text in disk(Path(constants.HF_HUB_CACHE))
    ]
    return [*findings, *cache]


def deepspeed(found: dict[str, str]) -> list[Finding]:
    """What ZeRO needs beyond the package: a compiler for its CPU parts."""
    if "deepspeed" not in found:
        return [Finding("ok", 'not installed, and only ZeRO needs it: pip install "anastyle[deepspeed]"')]
    lacking = [name for name in ("g++", "ninja") if shutil.which(name) is None]
    if lacking:
        text = f"{found['deepspeed']} compiles parts of itself, and there is no {' and no '.join(lacking)}."
        return [Finding("problem", f"{text} Install them, or launch without ZeRO.")]
    return [Finding("ok", f"{found['deepspeed']}, with a compiler")]


def tracking(output: Path) -> list[Finding]:
    """The MLflow store: is it there, and will it take a run?"""
    if not wanted():
        return [Finding("note", "switched off by ANASTYLE_TRACKING")]
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(output / 'mlflow.db').absolute()}"
    shown, scheme = without_password(uri), urlsplit(uri).scheme.split("+")[0]
    if scheme == "sqlite":
        return list(_database(Path(uri.partition(":///")[2]), shown))
    if scheme not in PORTS:
        text = (
            f"{shown}: MLflow keeps runs in a database or behind a server now. Use sqlite:///FILE or http://HOST:PORT"
        )
        return [Finding("problem", text)]
    address = urlsplit(uri)
    try:
        socket.create_connection((address.hostname, address.port or PORTS[scheme]), SERVER_PATIENCE).close()
    except OSError as error:
        text = f"{shown} does not answer ({error}). Runs go on without it; `anastyle sync` sends later."
        return [Finding("problem", text)]
    return [Finding("ok", f"{shown} is there")]


def _database(file: Path, shown: str) -> Iterator[Finding]:
    if not file.exists():
        made = Finding("ok", f"{shown}, made on first use")
        yield from (made if finding.state == "ok" else finding for finding in disk(file.parent))
        return
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=SERVER_PATIENCE)) as connection:
            runs = connection.execute("select count(*) from runs").fetchone()[0]
    except sqlite3.Error as error:
        yield Finding("problem", f"{shown}: {error}. Move it away; `anastyle sync` fills a new one.")
        return
    if not os.access(file, os.W_OK):
        yield Finding("problem", f"{shown} cannot be written to. Mend its permissions.")
    else:
        yield Finding("ok", f"{shown}, {runs} runs")


def gib(count: float) -> str:
    """Return a number of bytes in GiB."""
    return f"{count / GIB:.1f} GiB"
