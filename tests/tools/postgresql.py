"""A PostgreSQL server of the test's own: a new cluster in a temporary folder, on a loopback port, gone afterwards.

``from tools.postgresql import postgresql`` in a test file or a ``conftest.py`` makes the fixture known there.
"""

import grp
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

USER = "anastyle"
SCHEME = "postgresql+psycopg2"  # SQLAlchemy 2.1 reads plain "postgresql" as another driver, psycopg
SPEED = {"fsync": "off", "synchronous_commit": "off", "shared_buffers": "16MB", "max_connections": "60"}


class PostgreSQL:
    """A server that can be stopped, killed and started again with what it holds.

    Attributes:
        url: its database ``postgres``, with a user and a password, for SQLAlchemy.
    """

    def __init__(self) -> None:
        self.programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="anastyle-postgresql-"))
        self.port, self.password = free_port(), secrets.token_hex(8)
        self.url = f"{SCHEME}://{USER}:{self.password}@127.0.0.1:{self.port}/postgres"
        self._owner = unprivileged()
        if self._owner:
            shutil.chown(self.folder, *self._owner)
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        self._call("initdb", "--pgdata", self.folder / "data", "--username", USER, "--pwfile", secret,
                   "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync")  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {**SPEED, "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._call("pg_ctl", "start", "--wait", "--timeout", "120", "--pgdata", self.folder / "data",
                   "--log", self.folder / "log", "--options", options)  # fmt: skip

    def stop(self) -> None:
        """Stop the server, its clients' connections with it."""
        self._call("pg_ctl", "stop", "--wait", "--mode", "fast", "--pgdata", self.folder / "data")

    def kill(self) -> None:
        """Kill the server at once; ``start`` recovers what was committed."""
        self._call("pg_ctl", "stop", "--wait", "--mode", "immediate", "--pgdata", self.folder / "data")

    def database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        self._call("createdb", "--host", "127.0.0.1", "--port", self.port, "--username", USER, name)
        return self.url.removesuffix("/postgres") + f"/{name}"

    def close(self) -> None:
        """Stop the server and remove its folder."""
        try:
            if (self.folder / "data" / "postmaster.pid").exists():
                self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, program: str, *words: Any) -> None:
        user, group = self._owner or (None, None)
        environment = {**os.environ, "PGPASSWORD": self.password, "LC_ALL": "C"}
        subprocess.run([self.programs / program, *map(str, words)], check=True, timeout=180, stdout=subprocess.DEVNULL,
                       cwd=self.folder, env=environment, user=user, group=group,
                       extra_groups=[] if user else None)  # fmt: skip


def programs() -> Path:
    """Return the folder of the server's programs; skips the test where there is none, or no driver."""
    if find_spec("psycopg2") is None:
        pytest.skip("no psycopg2: pip install psycopg2-binary")
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not versions:
        pytest.skip("no PostgreSQL server: tests/tools/install-postgresql.sh installs one")
    return versions[-1].parent


def unprivileged() -> tuple[str, str] | None:
    """Return the user and group that run the server; None: ourselves. It refuses to be run by root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    return user, grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name


def free_port() -> int:
    """Return a loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A running server; tests take databases of their own from it."""
    server = PostgreSQL()
    try:
        yield server
    finally:
        server.close()
