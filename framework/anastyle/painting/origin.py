"""What a trained run leaves beside its weights, so that it can be rebuilt and told of without its training images."""

import json
from pathlib import Path
from typing import Any

from anastyle import weights
from anastyle.checkpoint import load_tensors, save_tensors
from anastyle.config import section
from anastyle.environment import environment
from anastyle.errors import DataError, listing
from anastyle.interfaces import Embedder
from anastyle.jsonlines import read_json, write_json
from anastyle.parts import Parts
from anastyle.registry import EMBEDDERS, REGISTRIES
from anastyle.stages import PLANS

ORIGIN = "origin.json"
FIT = "embedder.safetensors"


def write_origin(folder: Path, parts: Parts) -> None:
    """Write where a diffuse stage's weights come from, and what the embedder learned from the captions."""
    manifest = parts.data.manifest
    data = {
        "dataset": manifest.dataset,
        "fingerprint": manifest.fingerprint,
        "licence": getattr(manifest, "licence", "") or getattr(manifest, "license", ""),
        "split_kind": manifest.split_kind,
        "images": {split: manifest.count(split) for split in manifest.splits},
        "classes": manifest.classes,
        "captions": parts.captions,
    }
    record = {"data": data, "files": files_of(parts.config), "environment": environment()}
    write_json(folder / ORIGIN, record)
    fit = fit_of(parts.embedder)
    if fit and fingerprint_of(parts.config["embedder"]) != parts.embedder.fingerprint():
        save_tensors(folder / FIT, fit)


def read_origin(folder: Path) -> dict[str, Any]:
    """Return what ``write_origin`` wrote; empty for a run from before it did."""
    return read_json(folder / ORIGIN)


def files_of(config: dict[str, Any]) -> dict[str, str]:
    """Return a hash of the files that each section of the diffuse stage names; empty where it names none."""
    found = {}
    for part in PLANS["diffuse"].sections:
        cls, options = section(REGISTRIES[part], config[part], part)
        found[part] = " ".join(weights.identity(checkpoint) for checkpoint in cls.checkpoints(options))
    return found


def refuse_other_files(folder: Path, config: dict[str, Any]) -> None:
    """Raise when a file that a section names is not the one that was trained on.

    Raises:
        DataError: files have changed; all of them at once.
    """
    then, now = read_origin(folder).get("files", {}), files_of(config)
    changed = [part for part, known in then.items() if known and now.get(part) != known]
    if changed:
        lines = [f"{part}: {json.dumps(config[part])[:120]}" for part in changed]
        raise DataError(
            f"files that this run was trained on have changed since, or were moved:\n{listing(lines)}\n"
            "Put the old files back, or train again."
        )


def fit_of(embedder: Embedder) -> dict[str, Any]:
    """Return what an embedder keeps beside its parameters: of one that is fitted, the fit."""
    return embedder.state_dict().get("_extra_state") or {}


def load_fit(embedder: Embedder, folder: Path) -> None:
    """Give an embedder the fit that ``write_origin`` stored, if there is one."""
    if (folder / FIT).is_file():
        embedder.set_extra_state(load_tensors(folder / FIT))


def learns(embedder: Embedder) -> bool:
    """Say whether an embedder has still to be fitted on captions."""
    return type(embedder).fit is not Embedder.fit and not fit_of(embedder)


def fingerprint_of(mapping: dict[str, Any]) -> str:
    """Return the fingerprint of an embedder as its section alone gives it."""
    cls, config = section(EMBEDDERS, mapping, "embedder")
    return cls(config).fingerprint()
