"""Which settings each stage has."""

from dataclasses import dataclass

from anastyle.settings import EvaluateSettings, GenerateSettings, ValidateSettings
from anastyle.training_settings import Settings


@dataclass
class DiffuseSettings(Settings):
    """Training settings, and how often a condition is withheld."""

    drop_both: float = 0.1
    """Share of samples that see neither factor; they teach the unconditional half of guidance."""
    drop_anatomy: float = 0.05
    drop_style: float = 0.05


SCHEMAS: dict[str, type] = {
    "diffuse": DiffuseSettings,
    "validate": ValidateSettings,
    "generate": GenerateSettings,
    "evaluate": EvaluateSettings,
}


def schema(stage: str) -> type:
    """Return the dataclass of a stage's settings."""
    return SCHEMAS.get(stage, Settings)
