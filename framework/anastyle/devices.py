"""Which device and rank this process has, and records on their way to a device."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor


def on_cpu() -> bool:
    """Say whether this process trains on the CPU: there is nothing else, or ``ACCELERATE_USE_CPU`` asks for it."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def ranks() -> PartialState:
    """Return device and rank of this process among those launched together.

    Left alone, accelerate takes processes that ``torchrun`` launches without a GPU for strangers, each of rank 0.
    """
    return PartialState(cpu=on_cpu())


def to_device(value: Any, device: torch.device) -> Any:
    """Return a record with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{item.name: to_device(getattr(value, item.name), device) for item in fields(value)})
    if isinstance(value, tuple):
        parts = [to_device(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, dict):
        return {name: to_device(part, device) for name, part in value.items()}
    return value
