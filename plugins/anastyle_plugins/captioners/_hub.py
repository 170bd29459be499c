"""Models of the hub or in a folder: found before anything heavy is imported, safetensors only, no code of theirs."""

import hashlib
import os
from pathlib import Path

from anastyle import MissingError

SMALL = ["*.json", "*.txt", "*.jinja", "*.model"]
WEIGHTS = ["*.safetensors"]
ENDS = 1 << 20  # bytes at either end of a weight file that its name is made of


def find(model: str, revision: str | None, option: str, needed: tuple[str, ...] = ()) -> Path:
    """Return the folder that holds a model: a local one, the hub's cache, or, when online, a fresh download.

    Raises:
        MissingError: files are not here and cannot be fetched.
    """
    local = Path(model).expanduser()
    folder = local if local.is_dir() else _snapshot(model, revision, offline=True)
    if not local.is_dir() and lacking(folder, needed) and not _offline():
        folder = _snapshot(model, revision, offline=False) or folder
    missing = lacking(folder, needed)
    if folder is None or missing:
        at = f" --revision {revision}" if revision else ""
        way_out = "Copy them there." if local.is_dir() else (
            f"With a network (unset HF_HUB_OFFLINE): hf download {model}{at}\n"
            f"  or name a local folder: {option}=PATH"
        )  # fmt: skip
        raise MissingError(f"caption.{option}={model}: not here: {', '.join(missing)}\n  {way_out}")
    return folder


def lacking(folder: Path | None, needed: tuple[str, ...]) -> list[str]:
    """Name what a model's folder lacks; of older pickled weights nothing is read."""
    files = ("config.json", *needed)
    if folder is None:
        return [*files, "*.safetensors"]
    missing = [name for name in files if not (folder / name).is_file()]
    return missing if any(folder.glob("*.safetensors")) else [*missing, "*.safetensors"]


def identity(folder: Path) -> str:
    """Name a model's files: the hub's commit, or a hash of the small ones and of either end of the large ones."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        size = file.stat().st_size
        with file.open("rb") as stream:
            digest.update(f"{file.name} {size} ".encode() + stream.read(ENDS))
            stream.seek(max(size - ENDS, 0))
            digest.update(stream.read(ENDS))
    return digest.hexdigest()[:16]


def named(model: str, folder: Path) -> str:
    """Return a model's name with what identifies it, for the source of a field."""
    name = folder.name if Path(model).expanduser().is_dir() else model
    return f"{name}@{identity(folder)[:12]}"


def _snapshot(model: str, revision: str | None, *, offline: bool) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        patterns = [*SMALL, *WEIGHTS]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns, local_files_only=offline))
    except (OSError, ValueError):  # nothing cached, no network, no such model
        return None


def _offline() -> bool:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)
