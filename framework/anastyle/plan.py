"""Which stages a run goes through, and under which fingerprint each is stored.

A fingerprint is a hash of everything that decides a stage's outcome: the sections it reads with all their defaults,
the files those sections name, its own settings, the data, the seed, and the fingerprints of the stages before it. Two
variants that agree in all of this share one training.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anastyle import weights
from anastyle.checkpoint import is_complete, remove_folder
from anastyle.config import section, typed
from anastyle.experiment import STAGES, Run
from anastyle.registry import REGISTRIES
from anastyle.stages import PLANS, StagePlan
from anastyle.stages.settings import schema

CADENCE = ("checkpoint_every", "keep_checkpoints", "log_every")  # settings that change no weight


@dataclass(frozen=True)
class Node:
    """One stage of one run, and where its outcome is stored."""

    stage: str
    fingerprint: str
    folder: Path
    settings: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether the outcome is there, whole."""
        return is_complete(self.folder)


def nodes(run: Run, data: dict[str, Any], store: Path, *, captions: str) -> dict[str, Node]:
    """Return the stages of a run in their order; ``data`` identifies its prepared set, ``captions`` what they say."""
    planned: dict[str, Node] = {}
    for stage in active(run):
        plan = standing(stage, "diffuse" in planned)
        settings = run.config["stages"][stage]
        identity = {
            "version": plan.version,
            "stage": stage,
            "seed": run.seed,
            "data": data,
            "image_size": run.config["data"]["image_size"],
            "captions": captions if plan.reads_captions else None,
            "sections": {name: _identity(name, run.config[name]) for name in plan.sections},
            "settings": {key: value for key, value in settings.items() if key not in CADENCE},
            "after": [planned[name].fingerprint for name in plan.after if name in planned],
        }
        if plan.borrows:
            identity["borrows"] = {path: _borrowed(run, path) for path in plan.borrows}
        text = json.dumps(identity, sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        planned[stage] = Node(stage, fingerprint, store / stage / fingerprint, settings)
    return planned


def standing(stage: str, diffused: bool) -> StagePlan:
    """Return what a stage stands on: one that paints with parts as they are built, on what would have trained them."""
    plan, skipped = PLANS[stage], PLANS["diffuse"]
    if diffused or "diffuse" not in plan.after:
        return plan
    return replace(plan, sections=skipped.sections, after=(*skipped.after, *plan.after), reads_captions=True)


def active(run: Run) -> list[str]:
    """Return the stages a run goes through; what nothing reads is not trained. ``check`` has seen that they fit."""
    unread: tuple[str, ...] = ()
    if (chosen := run.config["aligner"]) is not None:
        unread += () if REGISTRIES["aligner"].get(chosen["name"]).trained else ("disentangle", "align")
    if (chosen := run.config["autoencoder"]) is not None:
        autoencoder, options = section(REGISTRIES["autoencoder"], chosen, "autoencoder")
        unread += () if autoencoder.trains(options) else ("autoencode",)
    return [stage for stage in STAGES if run.config["stages"].get(stage) is not None and stage not in unread]


def _borrowed(run: Run, path: str) -> Any:
    stage, option = path.split(".")
    return (run.config["stages"].get(stage) or {}).get(option)


def _identity(name: str, mapping: dict[str, Any] | None) -> Any:
    if mapping is None:
        return None
    cls, config = section(REGISTRIES[name], mapping, name)
    read = {**mapping, "weights": [weights.identity(checkpoint) for checkpoint in cls.checkpoints(config)]}
    return {**read, "version": cls.version} if cls.version > 1 else read  # stages older than versions are found


def settings_of(node: Node) -> Any:
    """Return a stage's typed settings."""
    return typed(schema(node.stage), node.settings, f"stages.{node.stage}")


def weight(node: Node, examples: int) -> int:
    """Return a stage's share of the progress bar, in steps."""
    if PLANS[node.stage].trained:
        return settings_of(node).total(examples)
    images = node.settings.get("images", 0)
    if node.stage == "validate":
        return images * (settings_of(node).candidates + node.settings["start"])
    return images


def forget(node: Node) -> None:
    """Remove what a stage left, finished or under way."""
    for folder in (node.folder, working(node)):
        remove_folder(folder)


def working(node: Node) -> Path:
    """Return where a stage's checkpoints lie while it trains."""
    return node.folder.with_name(f"{node.folder.name}.work")
