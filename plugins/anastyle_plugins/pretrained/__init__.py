"""Pretrained networks of diffusers' classes: those that ship with Anastyle, those in a folder, those of the hub.

The shipped ones were trained by us on the wide phantom world, so that the default works offline;
``experiments/pretrain_compact.yaml`` rebuilds them, README.md is their model card.
"""

from pathlib import Path
from typing import Any

import torch

from anastyle.weights import Checkpoint, diffusers_files, find

SHIPPED = "compact"  # what an option calls the networks of this folder


def shipped(path: str, part: str) -> str:
    """Return the folder of the shipped network for a part, where the path asks for it, or the path."""
    return str(Path(__file__).parent / part) if path == SHIPPED else path


def checkpoint(option: str, path: str, part: str, revision: str | None = None) -> Checkpoint:
    """Return the checkpoint an option names, of a model alone or as a ``part`` of a pipeline."""
    return Checkpoint(option, shipped(path, part), diffusers_files(part), revision)


def load(cls: Any, source: Checkpoint, part: str) -> Any:
    """Return a diffusers model of class ``cls``.

    Raises:
        MissingError: its files are not here.
    """
    folder = find(source)
    inside = folder if (folder / "config.json").is_file() else folder / part
    return cls.from_pretrained(inside, use_safetensors=True, torch_dtype=torch.float32, local_files_only=True)
