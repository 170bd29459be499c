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


def changed(path: Path, sha256: str, size: int | None = None) -> str:
    """Say how a file differs from what was written, looking at its size first; nothing, if it does not."""
    if not path.is_file():
        return f"{path}: missing"
    if size is not None and path.stat().st_size != size:
        return f"{path}: {path.stat().st_size} bytes instead of {size}"
    return "" if sha256_of(path) == sha256 else f"{path}: contents changed since it was written"


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
