"""Anastyle: controllable medical image generation, anatomy and style apart.

The public names; those that need torch wake when they are first used.
"""

import importlib
from typing import Any

from anastyle.errors import AnastyleError, ConfigError, DataError, MissingError, NumericalError
from anastyle.records import Caption
from anastyle.registry import (
    ALIGNERS,
    AUTOENCODERS,
    BACKBONES,
    CAPTIONERS,
    DATASETS,
    EMBEDDERS,
    ENCODERS,
    FEATURES,
    FUSERS,
    REGISTRIES,
)

__version__ = "0.1.0"

_INTERFACES = (
    "Aligner", "Autoencoder", "Backbone", "Batch", "Component", "Condition", "Embedded", "Embedder", "Encoder",
    "Encoding", "FactorDims", "Factors", "Feature", "Fuser", "Guide", "Keep", "Losses", "Reading", "Sample", "TextDims",
)  # fmt: skip
_SOURCES = ("Captioned", "Captioner", "Dataset", "Link", "Record")

__all__ = [
    "ALIGNERS", "AUTOENCODERS", "BACKBONES", "CAPTIONERS", "DATASETS", "EMBEDDERS", "ENCODERS", "FEATURES", "FUSERS",
    "REGISTRIES",
    "AnastyleError", "Caption", "ConfigError", "DataError", "MissingError", "NumericalError",
    *_INTERFACES, *_SOURCES,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    for module, names in (("interfaces", _INTERFACES), ("sources", _SOURCES)):
        if name in names:
            return getattr(importlib.import_module(f"anastyle.{module}"), name)
    raise AttributeError(f"module 'anastyle' has no attribute '{name}'")
