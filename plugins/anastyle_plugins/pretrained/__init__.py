"""Pretrained networks: those that ship with Anastyle, those in a folder, those of the hub.

The shipped ones were trained by us on the wide phantom world, so that the default works offline;
``experiments/pretrain_compact.yaml`` rebuilds them, README.md is their model card.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from anastyle import MissingError

SHIPPED = "compact"  # what an option calls the networks of this folder


def locate(path: str, part: str) -> Path:
    """Return the folder an option names: ``compact`` is the shipped network for that part.

    Raises:
        MissingError: it is not there.
    """
    folder = Path(__file__).parent / part if path == SHIPPED else Path(path)
    if not folder.is_dir():
        how = "Rebuild it: experiments/pretrain_compact.yaml" if path == SHIPPED else "Check the path."
        raise MissingError(f"{folder}: no such folder of weights. {how}")
    return folder


def load(cls: Any, path: str, part: str, *, pipeline: bool = False, revision: str | None = None) -> Any:
    """Return a diffusers model: shipped, in a folder, or of the hub.

    Arguments:
        part: its folder, where the path is that of a whole pipeline.
        pipeline: whether a hub id names a pipeline; a folder shows it.

    Raises:
        MissingError: it is not here, and the hub has no such repository or is out of reach.
    """
    local = path == SHIPPED or Path(path).is_dir()
    source = locate(path, part) if local else path
    if local:
        pipeline = not Path(source, "config.json").is_file()
    try:
        return cls.from_pretrained(
            source,
            subfolder=part if pipeline else None,
            revision=revision,
            use_safetensors=True,
            torch_dtype=torch.float32,
            local_files_only=local or os.environ.get("HF_HUB_OFFLINE") == "1",
        )
    except OSError as error:
        raise MissingError(
            f"{path}: no {part} to load: {str(error).splitlines()[0]}\n"
            "  needed: config.json, diffusion_pytorch_model.safetensors, in a folder or in the hub's cache"
        ) from None


def identify(path: str | None, part: str) -> str:
    """Return a hash of the files an option names; a hub id is named by its revision instead."""
    if path is None or not (path == SHIPPED or Path(path).is_dir()):
        return ""
    return contents(locate(path, part))


@lru_cache
def contents(folder: Path) -> str:
    """Return a hash of every file in a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]
