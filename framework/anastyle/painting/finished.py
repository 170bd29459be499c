"""A finished run, found again in its folder: its config, its stored stages, and its parts as a chain that paints."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anastyle.checkpoint import is_complete, load_tensors, load_trainable_state
from anastyle.config import load_yaml
from anastyle.data.prepare import prepared
from anastyle.errors import ConfigError, DataError, MissingError, did_you_mean
from anastyle.experiment import STAGES
from anastyle.interfaces import Embedder, Encoder
from anastyle.jsonlines import read_json
from anastyle.merge import PARTS
from anastyle.painting.chain import Chain, Reader
from anastyle.painting.origin import learns, load_fit, refuse_other_files
from anastyle.parts import Parts
from anastyle.registry import EMBEDDERS
from anastyle.settings import GenerateSettings
from anastyle.stages.choice import painted_with
from anastyle.stages.settings import DiffuseSettings
from anastyle.stages.training import Align, Autoencode, Diffuse

FOLDER = re.compile(r"seed-(\d+)")


@dataclass(frozen=True)
class FinishedRun:
    """One run that came to its end."""

    folder: Path
    config: dict[str, Any]
    seed: int
    stages: dict[str, str]  # stage -> fingerprint

    @classmethod
    def open(cls, folder: str | Path) -> "FinishedRun":
        """Read a run folder, ``OUTPUT/STUDY/VARIANT/seed-N``.

        Raises:
            MissingError: there is no such run, or it has not come to its end.
            ConfigError: the folder is something else.
            DataError: its record names stages that there are not.
        """
        folder = Path(folder).expanduser().resolve()
        if not folder.is_dir():
            near = did_you_mean(folder.name, [path.name for path in folder.parent.glob("*") if path.is_dir()])
            raise MissingError(f"{folder}: there is no such run.{near} A run is OUTPUT/STUDY/VARIANT/seed-N.")
        match = FOLDER.fullmatch(folder.name)
        if not match or not (folder / "config.yaml").is_file():
            runs = sorted(path.parent for path in folder.glob("**/seed-*/config.yaml"))[:3]
            found = f"\n  runs in it: {', '.join(str(run) for run in runs)}" if runs else ""
            raise ConfigError(f"{folder}: is no run folder. Name one: OUTPUT/STUDY/VARIANT/seed-N.{found}")
        status = read_json(folder / "status.json")
        if status.get("status") != "finished":
            was = status.get("status") or "not begun"
            raise MissingError(f"{folder}: this run is not finished ({was}). The command that began it continues it.")
        stages = status.get("stages") or {}
        if unknown := [name for name in stages if name not in STAGES]:
            raise DataError(f"{folder / 'status.json'}: names a stage '{unknown[0]}'. Stages: {', '.join(STAGES)}")
        return cls(folder, load_yaml(folder / "config.yaml"), int(match[1]), stages)

    @property
    def name(self) -> str:
        """The run's study, variant and seed."""
        return "/".join(self.folder.parts[-3:])

    @property
    def output(self) -> Path:
        """The folder that all studies share; the store is in it."""
        return self.folder.parents[2]

    def stored(self, stage: str) -> Path:
        """Return where a stage's outcome lies.

        Raises:
            ConfigError: the run has no such stage.
            MissingError: its outcome is not there, whole.
        """
        if stage not in self.stages:
            raise ConfigError(f"{self.name}: has no stage '{stage}', only {', '.join(self.stages) or 'none'}.")
        folder = self.output / "store" / stage / self.stages[stage]
        if not is_complete(folder):
            raise MissingError(f"{folder}: the {stage} stage of {self.name} is not there, whole. Run it again.")
        return folder

    def chain(self) -> Chain:
        """Rebuild the parts from the run's own config and put the stored weights in; no training image is read.

        Raises:
            DataError: the weights do not fit, or a base they were trained on has changed.
        """
        if "diffuse" not in self.stages:
            raise ConfigError(
                f"{self.name}: trains nothing that paints (stages.diffuse is off), so nothing of it is stored to "
                "sample or to export.\n  Name a run that has a diffuse stage."
            )
        diffuse = self.stored("diffuse")
        refuse_other_files(diffuse, self.config)
        parts = StoredParts(self, diffuse)
        if "autoencode" in self.stages:
            self._load("autoencode", Autoencode(parts.autoencoder))
        if "align" in self.stages:
            self._load("align", Align(parts.aligner))
        self._load("diffuse", Diffuse(parts.aligner, parts.fuser, parts.backbone, DiffuseSettings()))
        parts.autoencoder.requires_grad_(False).eval()
        own = GenerateSettings(**(self.config["stages"].get("generate") or {}))
        if "validate" in self.stages:
            own = painted_with(own, self.stored("validate"))
        return Chain(
            sections={part: self.config[part] for part in PARTS if self.config.get(part)},
            dims=parts.encoder.dims if parts.encoder else None,
            reader=Reader(parts.embedder, parts.aligner, parts.fuser).eval(),
            backbone=parts.backbone,
            image_size=parts.image_size,
            steps=own.steps,
            guidance=own.guidance,
        )

    def _load(self, name: str, stage: nn.Module) -> None:
        load_trainable_state(stage, load_tensors(self.stored(name) / "weights.safetensors"))
        stage.requires_grad_(False).eval()


class StoredParts(Parts):
    """The parts of a finished run, without its data."""

    def __init__(self, run: FinishedRun, diffuse: Path) -> None:
        super().__init__(run.config, None, seed=run.seed, cache=run.output / "cache")  # type: ignore[arg-type]
        self.run, self.diffuse = run, diffuse

    @cached_property
    def encoder(self) -> Encoder | None:
        """The visual encoder, for its widths alone."""
        with torch.device("meta"):
            return super().encoder

    @cached_property
    def embedder(self) -> Embedder:
        """The frozen language model; a fit on captions comes from the store, or is made again as it was."""
        embedder: Embedder = self._build(EMBEDDERS)
        load_fit(embedder, self.diffuse)
        if learns(embedder):  # a run from before fits were stored
            train = prepared(self.config["data"], self.run.output).split(
                "train", image_size=self.image_size, captions=self.captions
            )
            embedder.fit([caption.text for caption in train.captions])
        return embedder.requires_grad_(False).eval()
