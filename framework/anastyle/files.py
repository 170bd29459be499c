"""Files written whole or not at all, and named by what they hold."""

import hashlib
import os
from pathlib import Path
from uuid import uuid4


def write_whole(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write a file beside its place and rename it; ``sync`` has the disk hold it first."""
    beside = path.with_name(f".tmp-{path.name}-{uuid4().hex[:12]}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
