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
    "Aligner", "Autoencoder", "Backbone", "Batch", "Captioned", "Captioner", "Component", "Condition", "Dataset",
    "Embedded", "Embedder", "Encoder", "Encoding", "FactorDims", "Factors", "Feature", "Fuser", "Guide", "Keep",
    "Losses", "Reading", "Record", "Sample", "TextDims",
)  # fmt: skip

__all__ = [
    "ALIGNERS", "AUTOENCODERS", "BACKBONES", "CAPTIONERS", "DATASETS", "EMBEDDERS", "ENCODERS", "FEATURES", "FUSERS",
    "REGISTRIES",
    "AnastyleError", "Caption", "ConfigError", "DataError", "MissingError", "NumericalError", *_INTERFACES,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _INTERFACES:
        return getattr(importlib.import_module("anastyle.interfaces"), name)
    raise AttributeError(f"module 'anastyle' has no attribute '{name}'")
