"""Frozen encodings on disk, filed under a hash of all they depend on: never stale, never half there."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from anastyle.files import sha256_of


def cached(folder: Path, identity: dict[str, Any], compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return what ``compute`` gives for an identity, from the disk if it was computed before.

    Of several processes that ask at once, one computes and the others wait. A damaged entry is computed anew.

    Arguments:
        identity: all that the tensors depend on (data fingerprint, image size, model and weights, dtype), as JSON.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(identity, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    tensors, card = folder / f"{key}.safetensors", folder / f"{key}.json"
    with FileLock(folder / f"{key}.lock"):
        if not _intact(tensors, card):
            _store(compute(), tensors, card, identity)
        return load_file(tensors)


def _intact(tensors: Path, card: Path) -> bool:
    """Is the entry there, with the bytes that were written?"""
    if not card.is_file():  # it is written last
        return False
    try:
        intact = json.loads(card.read_text(encoding="utf-8"))["sha256"] == sha256_of(tensors)
    except (OSError, ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        warnings.warn(f"{tensors}: damaged, computed anew", stacklevel=3)
    return intact


def _store(content: dict[str, Tensor], tensors: Path, card: Path, identity: dict[str, Any]) -> None:
    card.unlink(missing_ok=True)
    partial, partial_card = (path.with_name(f"{path.name}.partial") for path in (tensors, card))
    save_file({name: _plain(tensor) for name, tensor in content.items()}, partial)
    partial_card.write_text(json.dumps({"sha256": sha256_of(partial), "identity": identity}), encoding="utf-8")
    shutil.copymode(partial_card, partial)  # save_file leaves it readable by its owner alone
    for source, target in ((partial, tensors), (partial_card, card)):
        with source.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(source, target)


def _plain(tensor: Tensor) -> Tensor:
    """Return the tensor on the CPU, contiguous, with a storage of its own."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
