"""Pretrained weights: which ones a part needs, whether they are here, and how they get here.

A model is named by a local folder, or by its id on the hub, ``owner/name``. An id is looked for in the folder that
``ANASTYLE_WEIGHTS`` names, then in the hub's cache. An experiment never downloads: ``anastyle fetch`` does, where there
is a network. Weights are read as safetensors only, and no code that lies beside them is ever run.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from anastyle.errors import MissingError
from anastyle.files import sha256_of

HOME = "ANASTYLE_WEIGHTS"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
BLOB = re.compile(r"[0-9a-f]{64}")  # the hub's cache names large files by their sha256


class Checkpoint(NamedTuple):
    """A model that an option names, and the files of it that are read."""

    option: str  # where the person names it: "backbone.path"
    path: str  # a folder, or a hub id
    files: tuple[str, ...]  # each one name, or several to choose from: "a.json | b.json"
    revision: str | None = None  # a branch, tag or commit; None: main
    optional: tuple[str, ...] = ()  # read where they are there


def diffusers_files(part: str) -> tuple[str, ...]:
    """Return the files of a diffusers model, alone or as the ``part`` of a pipeline."""
    weights = "diffusion_pytorch_model.safetensors"
    names = ("config.json", f"{weights} | {weights}.index.json")
    return tuple(f"{name} | {' | '.join(f'{part}/{one}' for one in choices(name))}" for name in names)


def choices(file: str) -> list[str]:
    """Return the names a file may have."""
    return [name.strip() for name in file.split("|")]


def find(checkpoint: Checkpoint) -> Path:
    """Return the folder that holds a checkpoint.

    Raises:
        MissingError: some of its files are not here; names them, and how to get them.
    """
    folder = place(checkpoint)
    missing = lacking(folder, checkpoint.files)
    if folder is not None and not missing:
        return folder
    raise MissingError(how_to_get(checkpoint, missing))


def how_to_get(checkpoint: Checkpoint, missing: list[str]) -> str:
    """Say which files of a checkpoint are missing, and the way out, in four lines at most."""
    option, path, revision = checkpoint.option, checkpoint.path, checkpoint.revision
    where = f"{path} (revision {revision})" if revision else path
    lines = [f"{option}: {where} is not here: {', '.join(missing)}"]
    if is_id(path):
        lines += [
            f"  Where there is a network: anastyle fetch FILE|PLUGIN --to weights; here: {HOME}=weights",
            f"  or name a folder that holds it: {option}=PATH",
        ]
    else:
        lines.append("  Check the path, or name a hub id, owner/name.")
    if pickles := pickled(place(checkpoint)):
        lines.append(f"  {', '.join(pickles[:2])} is a pickle, which can run code and is not read. Get safetensors.")
    return "\n".join(lines)


def pickled(folder: Path | None) -> list[str]:
    """Name the files of a folder, or of a pipeline's parts in it, that are pickles by their name."""
    there = [] if folder is None or not folder.is_dir() else [*folder.glob("*"), *folder.glob("*/*")]
    return sorted(file.relative_to(folder).as_posix() for file in there if file.suffix in PICKLES)  # type: ignore[arg-type]


def is_id(path: str) -> bool:
    """Tell a hub id, ``owner/name``, from a folder."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", path) is not None and not path.startswith(".") and not Path(path).is_dir()


def title(checkpoint: Checkpoint) -> str:
    """Return a checkpoint's name with what identifies its files."""
    name = checkpoint.path if is_id(checkpoint.path) else Path(checkpoint.path).name
    return f"{name}@{identity(checkpoint)[:12]}"


def place(checkpoint: Checkpoint) -> Path | None:
    """Return where a checkpoint lies, or would lie, on this machine; None: nowhere."""
    if not is_id(checkpoint.path):
        return Path(checkpoint.path).expanduser()
    home = os.environ.get(HOME)
    if home and (folder := Path(home).expanduser() / checkpoint.path).is_dir():
        return folder
    from huggingface_hub import snapshot_download  # late: a folder needs no hub

    try:
        return Path(snapshot_download(checkpoint.path, revision=checkpoint.revision, local_files_only=True))
    except (OSError, ValueError):
        return None


def lacking(folder: Path | None, files: Iterable[str]) -> list[str]:
    """Name what a folder lacks of these files, the shards that an index names included."""
    if folder is None:
        return [named(file) for file in files]
    missing = []
    for file in files:
        found = next((name for name in choices(file) if (folder / name).is_file()), None)
        if found is None:
            missing.append(named(file))
        else:
            missing += [name for name in shards(folder, found) if not (folder / name).is_file()]
    return missing


def named(file: str) -> str:
    """Return how a file that may have several names is called in a sentence."""
    return " or ".join([name for name in choices(file) if not name.endswith(".index.json")][:2])


def shards(folder: Path, file: str) -> list[str]:
    """Return the files that an index of weights names; none for any other file."""
    if not file.endswith(".index.json"):
        return []
    names = json.loads((folder / file).read_text(encoding="utf-8"))["weight_map"].values()
    return sorted({(Path(file).parent / name).as_posix() for name in names})


def present(folder: Path, checkpoint: Checkpoint) -> list[str]:
    """Return the files that are read from a folder, shards included."""
    wanted = (*checkpoint.files, *checkpoint.optional)
    found = [next((name for name in choices(file) if (folder / name).is_file()), None) for file in wanted]
    names = [name for name in found if name is not None]
    return sorted({*names, *(shard for name in names for shard in shards(folder, name))})


def identity(checkpoint: Checkpoint) -> str:
    """Return a hash of the files that are read, alike for a folder and the hub's cache; "" if they are not here."""
    folder = place(checkpoint)
    if folder is None or lacking(folder, checkpoint.files):
        return ""
    digest = hashlib.sha256()
    for name in present(folder, checkpoint):
        digest.update(f"{Path(name).name} {_sha256((folder / name).resolve())}\n".encode())
    return digest.hexdigest()[:16]


def _sha256(file: Path) -> str:
    if BLOB.fullmatch(file.name):
        return file.name
    stat = file.stat()
    return _hash(file, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _hash(file: Path, size: int, changed: int) -> str:
    return sha256_of(file)
