"""Where the trials of a study are kept: a journal in its folder, or a database. Waited for when it is busy or away.

A journal is for workers that share a folder, on one machine or on many; PostgreSQL for many machines; SQLite lets one
writer in at a time, so one worker. Whoever takes a trial, or ends one, holds the study's lock while at it.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import optuna
import psutil
import sqlalchemy
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from anastyle.errors import ConfigError, MissingError
from anastyle.passwords import without_password

T = TypeVar("T")
Say = Callable[[str], None]

JOURNAL = "optuna.journal"
PATIENCE = 300.0  # seconds a worker waits for a storage that does not answer
AT_START = 30.0  # likewise, before its first trial
LOCK_PATIENCE = 20.0  # seconds for one try to get the study's lock
BUSY = 2  # seconds that SQLite itself waits for a lock, before we say who has it
GONE = ("no such table", "does not exist", "Record does not exist")
FINAL = (*GONE, "authentication failed", "could not translate host name", "role ", "no password supplied")
FAILURES = (StorageInternalError, SQLAlchemyError, Timeout, OSError)

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Storage:
    """A study's storage, and its lock.

    Arguments:
        address: None for a journal in the folder, else a database.
        name: of the study; with the address it names the lock in PostgreSQL.
        say: is told what this process waits for.
    """

    def __init__(self, address: str | None, folder: Path, name: str, say: Say) -> None:
        self.address, self.folder, self.name, self.say = address, folder, name, say
        self.file = _file(address, folder)
        self.inode: int | None = None  # of the file, once it is open
        self._alone: FileLock | None = None

    def connect(self) -> BaseStorage:
        """Return Optuna's storage.

        Raises:
            MissingError: it does not answer.
            ConfigError: another worker is on this SQLite file.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self.patiently(self._connect, AT_START)
        self.inode = self.file.stat().st_ino if self.file is not None else None
        return found

    def close(self) -> None:
        """Let another worker have the SQLite file."""
        if self._alone is not None:
            self._alone.release()

    def _connect(self) -> BaseStorage:
        if self.address is None:
            assert self.file is not None
            return JournalStorage(Journal(self.file))
        options: dict = {"pool_pre_ping": True}
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._only_worker()
            options["connect_args"] = {"timeout": BUSY}
        address = with_driver(self.address)
        self.engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
        return RDBStorage(address, engine_kwargs=options)

    def _only_worker(self) -> None:
        self._alone = self._alone or FileLock(f"{self.file}.worker.lock")
        try:
            if not self._alone.is_locked:
                self._alone.acquire(timeout=0)
        except Timeout:
            worker = holder(Path(self._alone.lock_file)) or "another worker"
            raise ConfigError(
                f"sweep.storage={self.where}: {worker} is on it, and "
                "SQLite lets one writer in at a time.\n  For several workers: storage: null, or postgresql://..."
            ) from None

    @property
    def where(self) -> str:
        """The storage, to show and to write down: no user, no password."""
        return str(self.file) if self.address is None else without_password(self.address)

    def locked(self) -> AbstractContextManager[object]:
        """Hold the study's lock: one worker at a time takes a trial, or ends one."""
        if self.address is None or self.file is not None:
            return FileLock(self.folder / ".sweep.lock").acquire(timeout=LOCK_PATIENCE)
        return self._advisory()

    @contextmanager
    def _advisory(self) -> Iterator[None]:
        key = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big", signed=True)
        with self.engine.begin() as connection:  # the lock ends with the transaction, and that with its worker
            connection.execute(sqlalchemy.text(f"set local lock_timeout = '{LOCK_PATIENCE:.0f}s'"))
            connection.execute(sqlalchemy.text("select pg_advisory_xact_lock(:key)"), {"key": key})
            yield

    def patiently(self, call: Callable[[], T], patience: float | None = None) -> T:
        """Return what a call gives, trying again while the storage is busy or away.

        Raises:
            MissingError: the storage is gone, refuses us, or did not answer for long.
        """
        until, pause, told = time.monotonic() + (PATIENCE if patience is None else patience), 0.5, ""
        while True:
            self.refuse_gone()
            try:
                return call()
            except FAILURES as error:
                text = reason(error)
                if any(word in text for word in FINAL):
                    raise MissingError(f"{self.where}: {text}. {self._way_out(text)}") from error
                if time.monotonic() > until:
                    raise MissingError(f"{self.where}: does not answer ({text}). {self._way_out()}") from error
                by = self._holder()
                if told != by + text:
                    told = by + text
                    self.say(
                        f"{self.where}: {f'locked by {by}' if by else f'does not answer ({text})'}; waiting for it"
                    )
            time.sleep(pause)
            pause = min(2 * pause, 10.0)

    def refuse_gone(self) -> None:
        """Raise MissingError where the file of an open storage was taken away."""
        if self.inode is not None and self.file is not None and _inode(self.file) != self.inode:
            raise MissingError(f"{self.where}: is gone. {self._way_out('no such table')}")

    def _way_out(self, text: str = "") -> str:
        if any(word in text for word in GONE):
            return "Put it back and run the same command, or start over: --fresh (finished stages are found again)."
        return "When it is back, the same command continues; nothing that was trained is lost."

    def _holder(self) -> str:
        places = [self.folder / ".sweep.lock"] if self.file is not None else []
        if self.file is not None and self.address is not None:
            places.insert(0, self.file)
        return next((found for place in places if (found := holder(place))), "")


def with_driver(address: str) -> str:
    """Return an address of PostgreSQL that names the driver that is installed; any other as it is."""
    url = make_url(address)
    if url.drivername != "postgresql":
        return address
    driver = "psycopg" if find_spec("psycopg") else "psycopg2"
    return url.set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:
        return None


def _file(address: str | None, folder: Path) -> Path | None:
    """Return the file a storage lives in; None for a server.

    Raises:
        ConfigError: the address cannot be read.
    """
    if address is None:
        return folder / JOURNAL
    try:
        url = make_url(address)
    except ArgumentError:
        raise ConfigError(f"sweep.storage={without_password(address)}: is no address of a database.") from None
    if not url.drivername.startswith("sqlite"):
        return None
    if not url.database:
        raise ConfigError("sweep.storage: name the SQLite file: sqlite:///FILE, four slashes for a whole path.")
    return Path(url.database)


class Journal(JournalFileBackend):
    """Optuna's journal, which half a line of a killed process cannot spoil, and which is not begun anew when gone."""

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self.file, self.lock = file, JournalFileOpenLock(str(file))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines, behind the last whole one."""
        self.lock.acquire()
        try:
            with self.file.open("rb+") as stream:
                stream.truncate(whole(stream))
                stream.seek(0, os.SEEK_END)
                stream.write("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode())
                stream.flush()
                os.fsync(stream.fileno())
        finally:
            self.lock.release()


def whole(stream: BinaryIO) -> int:
    """Return where the last whole line of a file ends."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        start = max(end - 65536, 0)
        stream.seek(start)
        if (last := stream.read(end - start).rfind(b"\n")) >= 0:
            return start + last + 1
        end = start
    return 0


def holder(file: Path) -> str:
    """Say which process of this machine has a file locked, ``process 123 (python)``; nothing where that is unknown."""
    try:
        inode = str(file.stat().st_ino)
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line]
    except OSError:
        return ""
    pids = {int(line[4]) for line in held if line[5].rpartition(":")[2] == inode} - {0, -1, os.getpid()}
    for pid in sorted(pids):
        with suppress(psutil.Error):
            return f"process {pid} ({psutil.Process(pid).name()})"
        return f"process {pid}"
    return ""


def reason(error: BaseException) -> str:
    """Return what a storage's failure was, in one line, as its own program said it; no password is in it."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    if isinstance(cause, Timeout):
        return "another worker holds the study's lock"
    inner = cause.orig if isinstance(cause, DBAPIError) and cause.orig is not None else cause
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    return without_password(
        lines[-1] if len(lines) > 1 and "failed:" in lines[-1] else lines[0] if lines else type(inner).__name__
    )
