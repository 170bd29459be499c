"""What a run's numbers are means of, kept beside its values: hits by caption, changes by pair, features by image.

With them two runs are compared caption by caption, long after their images are gone: see ``differences``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anastyle.checkpoint import load_tensors, save_tensors
from anastyle.evaluation.distances import Array
from anastyle.evaluation.reference import Reference
from anastyle.evaluation.values import Value
from anastyle.interfaces import Feature

FILE = "samples.safetensors"
FEATURES, REAL = "features/", "real/"  # of generated images, and of those they are measured against
Samples = Mapping[str, Array]  # by value key (n,) or (parts, n), NaN where not asked; features (n, F) by network


@dataclass(frozen=True)
class Row:
    """What one run of a study was worth."""

    variant: str
    seed: int
    values: dict[str, Value]
    samples: Samples | None = None  # runs that were measured before these were kept have none


def write_samples(
    folder: Path, values: Mapping[str, Value], images: Tensor, real: Reference, networks: Mapping[str, Feature]
) -> None:
    """Write ``samples.safetensors``: float32, hits by value key, and features of both sides on each network."""
    content = {key: value.samples for key, value in values.items() if value.samples is not None}
    for name, network in networks.items():
        content[FEATURES + name] = real.look(network, images)
        content[REAL + name] = real.features(network).against
    save_tensors(folder / FILE, {key: torch.from_numpy(np.float32(array)) for key, array in content.items()})


def samples_of(folder: Path) -> Samples | None:
    """Read what ``write_samples`` wrote, in float64; None where a run was measured before it was kept."""
    if not (folder / FILE).is_file():
        return None
    return {key: tensor.double().numpy() for key, tensor in load_tensors(folder / FILE).items()}
