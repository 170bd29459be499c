"""What an experiment file can say about how a stage is trained."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args, get_type_hints

from anastyle.errors import ConfigError, did_you_mean


@dataclass
class Settings:
    """How a stage is trained. A step is one update of the weights.

    A step is ``accumulate`` batches of ``batch_size`` images, on one device or on many: these share the batches out,
    and where there are too few batches, each batch's images. So the learning rate, the number of steps and the order of
    the images never depend on how many devices there are. With whole batches for every device, that is ``accumulate`` a
    multiple of their number, neither do the losses, up to rounding; a batch that is cut has its own noise and batch
    statistics in each piece.
    """

    steps: int = 1000
    epochs: float | None = None
    """Passes over the examples; then ``steps`` follows from it."""
    batch_size: int = 32
    """Images that go through one device at once."""
    lr: float = 1e-4
    optimizer: Literal["adamw", "adam"] = "adamw"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    """``constant`` or ``cosine`` (down to 0), after the warmup."""
    warmup: int = 0
    """Steps of linear warmup."""
    max_grad_norm: float | None = 1.0
    ema: float | None = None
    """Decay of an average of the weights, which is then what the stage ends with. Grows as (1 + t) / (10 + t)."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    accumulate: int = 1
    """Batches per step, of all devices together: 8 of them are 8 passes of one device, or 2 on each of four."""
    weights: dict[str, float] = field(default_factory=dict)
    """The weight of each loss term."""
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    log_every: int = 10

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with: one ConfigError for all of it."""
        least = {"steps": 0, "batch_size": 1, "accumulate": 1, "warmup": 0, "weight_decay": 0, "checkpoint_every": 1,
                 "keep_checkpoints": 1, "log_every": 1}  # fmt: skip
        problems = [f"{name}={getattr(self, name)}: must be at least {low}" for name, low in least.items()
                    if getattr(self, name) < low]  # fmt: skip
        for name in ("optimizer", "schedule", "precision"):
            known = get_args(get_type_hints(Settings)[name])
            if (value := getattr(self, name)) not in known:
                problems.append(f"{name}={value}: must be one of {', '.join(known)}.{did_you_mean(str(value), known)}")
        problems += [f"{name}={value}: must be above 0" for name in ("lr", "epochs", "max_grad_norm")
                     if (value := getattr(self, name)) is not None and not value > 0]  # fmt: skip
        if self.ema is not None and not 0 < self.ema < 1:
            problems.append(f"ema={self.ema}: must lie between 0 and 1")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            problems.append(f"betas={self.betas}: must be two numbers in [0, 1)")
        if problems:
            raise ConfigError("; ".join(problems))

    def total(self, examples: int) -> int:
        """Return the number of steps, given how many examples there are."""
        if self.epochs is None:
            return self.steps
        return math.ceil(self.epochs * examples / (self.batch_size * self.accumulate))

    def shared(self, devices: int) -> tuple[int, int]:
        """Return a device's part of a step: how many batches, and of how many images.

        Raises:
            ConfigError: the parts would not be equal.
        """
        pieces = devices // math.gcd(self.accumulate, devices)  # of a batch
        if self.batch_size % pieces:
            raise ConfigError(
                f"accumulate x batch_size, {self.accumulate} x {self.batch_size} images, cannot be shared out to "
                f"{devices} devices.\n  Set accumulate to a multiple of {devices}, or batch_size to one of {pieces}."
            )
        return self.accumulate * pieces // devices, self.batch_size // pieces

    def lr_at(self, step: int, total: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * (step - self.warmup) / max(total - self.warmup, 1))) / 2
