"""Two nodes, as two network namespaces of this machine: they meet, train, and part where the cable is cut."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launchers import PATIENCE, PROGRAM, environment

pytestmark = pytest.mark.slow
TIMEOUT = 10  # seconds in which the ranks must answer
NODES = {"anastyle-a": "10.213.77.1", "anastyle-b": "10.213.77.2"}
ENDLESS = ("steps=100000", "checkpoint_every=100000")


def ip(*words: str) -> None:
    """Run one ``ip`` command."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """Two namespaces with a cable between them."""
    names = list(NODES)
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in NODES.items():
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for link in ("lo", "cable"):
                ip("-n", name, "link", "set", link, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    else:
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def start(node: str, folder: Path) -> subprocess.Popen[str]:
    """Start one node's launcher, with one rank."""
    command = [
        "ip", "netns", "exec", node, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
        "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "two", "--local-addr", NODES[node],
        "--rdzv-conf", f"is_host={node == 'anastyle-a'}",
        "--rdzv-endpoint", f"{NODES['anastyle-a']}:29500", PROGRAM, str(folder), *ENDLESS,
    ]  # fmt: skip
    variables = environment(GLOO_SOCKET_IFNAME="cable", ANASTYLE_RANK_TIMEOUT=str(TIMEOUT))
    with (folder / f"{node}.log").open("w") as log:
        return subprocess.Popen(command, env=variables, stdout=log, stderr=log, text=True)


def test_a_node_that_is_cut_off_is_missed_and_named_within_the_timeout(nodes, tmp_path):
    running = [start(node, tmp_path) for node in nodes]
    log = tmp_path / "work" / "metrics.jsonl"
    try:
        end = time.monotonic() + PATIENCE
        while not (log.exists() and len(log.read_text().splitlines()) > 3):
            assert time.monotonic() < end, (tmp_path / "anastyle-a.log").read_text()[-3000:]
            time.sleep(0.2)

        ip("-n", nodes[1], "link", "set", "cable", "down")
        cut = time.monotonic()
        missed: dict[str, float] = {}
        while len(missed) < 2 and time.monotonic() < cut + 120:
            for node in nodes:
                if "did not answer" in (tmp_path / f"{node}.log").read_text():
                    missed.setdefault(node, time.monotonic() - cut)
            time.sleep(0.2)
        assert running[0].wait(120) != 0
    finally:
        for process in running:
            process.kill()

    assert set(missed) == set(nodes)
    assert max(missed.values()) < TIMEOUT + 30
    assert f"another process is gone, or did not answer for {TIMEOUT} s" in (tmp_path / "anastyle-a.log").read_text()
