"""Which device and rank this process has, and records on their way to a device."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, GradientAccumulationPlugin, parse_flag_from_env
from torch import Tensor

from anastyle.errors import ConfigError


def on_cpu() -> bool:
    """Say whether this process trains on the CPU: there is nothing else, or ``ACCELERATE_USE_CPU`` asks for it."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def use_all_cores() -> None:
    """Undo what ``accelerate launch`` does to a lone CPU process: one thread, unless it was told otherwise."""
    launched = any(name.startswith("ACCELERATE_") for name in os.environ)
    alone = int(os.environ.get("WORLD_SIZE") or 1) == 1
    if launched and alone and on_cpu() and os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(len(os.sched_getaffinity(0)))


def ranks() -> PartialState:
    """Return device and rank of this process among those launched together.

    Left alone, accelerate takes processes that ``torchrun`` launches without a GPU for strangers, each of rank 0.
    """
    return PartialState(cpu=on_cpu())


def device() -> torch.device:
    """Return this process's device."""
    found = ranks().device
    assert found is not None
    return found


def accelerator_for(precision: str, where: str) -> Accelerator:
    """Return a fresh accelerator for one training.

    Raises:
        ConfigError: the processes are not launched as plain data parallelism, or there is no GPU for fp16.
    """
    ranks()
    accelerator = Accelerator(
        cpu=on_cpu(),
        mixed_precision="no",  # autocast is the trainer's: accelerate's cannot change from one stage to the next
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )
    kind = accelerator.distributed_type
    if kind not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise ConfigError(f"{where}: {kind.value} is not supported. Launch with plain data parallelism (DDP).")
    if int(os.environ.get("WORLD_SIZE") or 1) != accelerator.num_processes:
        raise ConfigError(f"{where}: launched as processes that do not know of each other. Use devices.ranks() first.")
    if precision == "fp16" and accelerator.device.type != "cuda":
        raise ConfigError(f"{where}.precision: fp16 needs a GPU. Use bf16 or no.")
    return accelerator


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which nothing on the device is cast to half precision behind our back."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


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
