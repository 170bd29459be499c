"""Small networks trained by us on the wide phantom world, so that the default works offline.

``experiments/pretrain_compact.yaml`` rebuilds them; README.md is their model card.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from anastyle import MissingError


def locate(path: str, part: str) -> Path:
    """Return the folder an option names: ``compact`` is the shipped network for that part.

    Raises:
        MissingError: it is not there.
    """
    folder = Path(__file__).parent / part if path == "compact" else Path(path)
    if not folder.is_dir():
        how = "Rebuild it: anastyle run experiments/pretrain_compact.yaml" if path == "compact" else "Check the path."
        raise MissingError(f"{folder}: no such folder of weights. {how}")
    return folder


@lru_cache
def contents(folder: Path) -> str:
    """Return a hash of every file in a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]
