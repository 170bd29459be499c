"""Folders that are whole or not at all, and the tensors a stage leaves behind.

A folder is written beside its place, sealed with ``COMPLETE.json`` (sha256 and size of every file), flushed to the disk
and renamed. Tensors are safetensors, the rest is JSON; there is no pickle anywhere.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anastyle.errors import DataError, MissingError, listing
from anastyle.files import changed, sha256_of
from anastyle.jsonlines import write_json

SEAL = "COMPLETE.json"
FORMAT = 1


# Folders


@contextmanager
def write_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its place, sealed, when the block ends without an error.

    Whatever ``target`` held before is replaced. If the block raises, or the process dies, ``target`` is untouched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".tmp-{target.name}-{uuid4().hex[:12]}"
    temporary.mkdir()
    try:
        yield temporary
        _seal(temporary)
        _put(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def is_complete(folder: Path) -> bool:
    """Say whether a folder was written to its end: sealed, and every file there in its full size. Reads no contents."""
    files = _seal_of(folder)
    return files is not None and all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["bytes"] for name, entry in files.items()
    )


def verify(folder: Path) -> list[str]:
    """Return what is wrong with a sealed folder, by comparing every byte with its seal; empty when it is whole."""
    files = _seal_of(folder)
    if files is None:
        return [f"{folder}: {SEAL} is missing or broken"]
    found = (changed(folder / name, entry["sha256"], entry["bytes"]) for name, entry in files.items())
    return [problem for problem in found if problem]


def refuse_damaged(folder: Path) -> None:
    """Raise DataError unless every byte of a sealed folder is as written."""
    if problems := verify(folder):
        raise DataError(f"{folder}: is damaged. Delete it, it will be made anew.\n{listing(problems)}")


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there, so that at no moment a part of it bears its name."""
    with suppress(FileNotFoundError):
        os.rename(folder, _aside(folder))
    remove_leftovers(folder.parent, folder.name)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what a killed process left half written or half removed in a folder, of all names or of one.

    Only for names that no other process writes to.
    """
    for pattern in (f".tmp-{name}-*", f".old-{name}-*"):
        for leftover in folder.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)


def _seal(folder: Path) -> None:
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        _flush(file)
        name = file.relative_to(folder).as_posix()
        files[name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    (folder / SEAL).write_text(json.dumps({"format": FORMAT, "files": files}, indent=1), encoding="utf-8")
    _flush(folder / SEAL)
    for inner in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        _flush(inner)


def _put(source: Path, target: Path) -> None:
    aside = None
    if target.exists():
        aside = _aside(target)
        os.rename(target, aside)
    os.rename(source, target)
    _flush(target.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.parent / f".old-{folder.name}-{uuid4().hex[:12]}"


def _seal_of(folder: Path) -> dict[str, dict] | None:
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        files = seal["files"]
        return files if all({"bytes", "sha256"} <= entry.keys() for entry in files.values()) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Tensors


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors, of any device and layout, as safetensors.

    Raises:
        OSError: the file cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata=dict(metadata) if metadata else None)
    except SafetensorError as error:  # what the system said stands in its words alone: "... (os error 28)"
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def tensors_hash(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """Return a hash of named tensors, and of what else names them, in hexadecimal; the order does not matter."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu()
        digest.update(name.encode() + (plain.float() if plain.is_floating_point() else plain).numpy().tobytes())
    return digest.hexdigest()


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors to the CPU.

    Raises:
        MissingError: there is no such file.
        DataError: the file is no safetensors file, or it ends early.
    """
    if not path.is_file():
        raise MissingError(f"{path}: no such file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: not a whole safetensors file ({error}). Remove it, it will be made anew.") from error


def load_metadata(path: Path) -> dict[str, str]:
    """Read the words a safetensors file carries beside its tensors."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


# What a stage learned


def trainable_state(stage: nn.Module) -> dict[str, Tensor]:
    """Return what a stage learned, by its ``state_dict`` names: the tensors worth storing.

    These are the parameters with ``requires_grad``, and each buffer whose *home* holds such a parameter, in itself or
    below. A buffer's home is the module it is registered on or, where that one holds no parameters at all, the nearest
    module above that does. So the running statistics of a trained BatchNorm are kept (with its affine weights or
    without), those of a frozen one are not, and a frozen parameter never is.
    """
    state = stage.state_dict()
    kept = {name for name, parameter in _parameters(stage) if parameter.requires_grad}
    for prefix, module in stage.named_modules(remove_duplicate=False):
        names = [f"{prefix}.{name}" if prefix else name for name in module._buffers]
        if names and any(parameter.requires_grad for parameter in _home(stage, prefix).parameters()):
            kept.update(names)
    return {name: tensor for name, tensor in state.items() if name in kept}


def load_trainable_state(stage: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put what ``trainable_state`` returned back into a stage built the same way, frozen in the meantime or not.

    Raises:
        DataError: a name or shape does not fit, or something that is trained here is not among the tensors.
    """
    state = stage.state_dict()
    problems = [f"{name}: the stage has no such tensor" for name in tensors if name not in state]
    problems += [f"{name}: is not among the stored tensors" for name in trainable_state(stage) if name not in tensors]
    problems += [
        f"{name}: stored as {tuple(tensor.shape)}, the stage has {tuple(state[name].shape)}"
        for name, tensor in tensors.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        name = getattr(stage, "name", type(stage).__name__)
        raise DataError(f"stage '{name}': the stored weights are of another model.\n{listing(problems)}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)


def _parameters(stage: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return stage.named_parameters(remove_duplicate=False)


def _home(stage: nn.Module, prefix: str) -> nn.Module:
    module = stage.get_submodule(prefix)
    while prefix and next(module.parameters(), None) is None:
        prefix = prefix.rpartition(".")[0]
        module = stage.get_submodule(prefix)
    return module


# Checkpoints


def optimizer_state(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return what an optimizer remembers, as ``<parameter's name>.<moment>``; names in the order of the parameters."""
    entries = optimizer.state_dict()["state"].items()
    return {f"{names[number]}.{key}": value for number, entry in entries for key, value in entry.items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Put what ``optimizer_state`` returned back."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        owner, _, key = name.rpartition(".")
        state.setdefault(names.index(owner), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def save_checkpoint(
    folder: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], state: dict, keep: int
) -> Path:
    """Write ``checkpoint-<step>/``: a safetensors file for each group and ``state.json``; then drop the oldest."""
    target = folder / f"checkpoint-{step}"
    with write_folder(target) as temporary:
        for name, tensors in groups.items():
            save_tensors(temporary / f"{name}.safetensors", tensors)
        write_json(temporary / "state.json", {**state, "step": step})
    for old in checkpoints(folder)[max(keep, 1) :]:
        remove_folder(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders, whole or not, the newest first; other names are not looked at."""
    found = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*")}
    steps = {int(match[1]): path for path, match in found.items() if match}
    return [steps[step] for step in sorted(steps, reverse=True)]


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> Path | None:
    """Return the newest checkpoint whose every byte is as written, None when there is no checkpoint at all.

    Damaged newer ones are named and removed, once an older one can take their place.

    Raises:
        DataError: there are checkpoints, all of them damaged.
    """
    damaged: list[tuple[Path, str]] = []
    for path in checkpoints(folder):
        problems = verify(path)
        if not problems:
            for bad, problem in damaged:
                say(f"skipped {bad.name}, which is damaged ({problem}); continuing from {path.name}")
                remove_folder(bad)
            return path
        damaged.append((path, problems[0]))
    if damaged:
        raise DataError(
            f"{folder}: no checkpoint is whole.\n{listing([problem for _, problem in damaged])}\n"
            "Delete this folder to start the stage over."
        )
    return None
