"""What a sweep asks for, read from its section."""

from dataclasses import dataclass

from anastyle.sweeps.methods import Method
from anastyle.sweeps.space import Parameter

PRUNED = "diffuse"  # the stage whose loss a pruner compares


@dataclass(frozen=True)
class Sweep:
    """A ``sweep`` section, read."""

    trials: int
    objective: dict[str, str]
    """Metric of the table -> ``minimize`` or ``maximize``."""
    sampler: Method
    pruner: Method | None
    space: list[Parameter]
    storage: str | None
    """None: a journal in the study's folder."""
