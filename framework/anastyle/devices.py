"""Which device and rank this process has, what the ranks tell each other, and records on their way to a device."""

import itertools
import os
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    broadcast_object_list,
    parse_flag_from_env,
)
from torch import Tensor

from anastyle.errors import AnastyleError, ConfigError, LostError, MissingError

TIMEOUT = "ANASTYLE_RANK_TIMEOUT"  # seconds in which every rank must answer; by default three minutes
SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.DEEPSPEED)
LOST = re.compile(r"gloo|nccl|timed out|connection|socket|broken pipe", re.IGNORECASE)
POLL = 0.1  # seconds between two looks at what other ranks said

T = TypeVar("T")

_meetings = itertools.count()  # of all ranks; each process counts the same ones


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

    Left alone, accelerate takes processes that ``torchrun`` launches without a GPU for strangers, each of rank 0, and
    lets a dead one be waited for half an hour.
    """
    timeout = timedelta(seconds=patience())
    if restarted() and not torch.distributed.is_initialized():
        meet_anew(timeout)
    if not by_deepspeed():
        return PartialState(cpu=on_cpu(), timeout=timeout)
    if not on_cpu():
        return PartialState(timeout=timeout)
    os.environ["DS_ACCELERATOR"] = "cpu"  # before DeepSpeed is imported
    return PartialState(backend="gloo", timeout=timeout)


def restarted() -> bool:
    """Say whether ``torchrun`` started this process again, and kept the store in which the ranks find each other."""
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return kept and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def meet_anew(timeout: timedelta) -> None:
    """Have the ranks find each other under names of this life of theirs: under the old ones they wait for the dead."""
    host, port, size, rank, life = (
        os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "TORCHELASTIC_RESTART_COUNT")
    )
    store = torch.distributed.TCPStore(host, int(port), int(size), is_master=False, timeout=timeout)
    torch.distributed.init_process_group(
        "gloo" if on_cpu() else "nccl", store=torch.distributed.PrefixStore(f"life-{life}", store),
        rank=int(rank), world_size=int(size), timeout=timeout,
    )  # fmt: skip


def by_deepspeed() -> bool:
    """Say whether the launcher asks for DeepSpeed."""
    return parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")


def patience() -> float:
    """Return for how many seconds a rank that does not answer is waited for."""
    return float(os.environ.get(TIMEOUT) or 180)


def device() -> torch.device:
    """Return this process's device."""
    found = ranks().device
    assert found is not None
    return found


def accelerator_for(precision: str, where: str) -> Accelerator:
    """Return a fresh accelerator for one training.

    Raises:
        ConfigError: the processes are launched for something else than DDP or DeepSpeed, or there is no GPU for fp16.
        MissingError: DeepSpeed is asked for and not installed.
    """
    try:
        ranks()
        accelerator = Accelerator(
            cpu=on_cpu() and not by_deepspeed(),
            mixed_precision="no",  # autocast is ours: accelerate's cannot change from one stage to the next
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        )
    except ImportError as error:
        raise MissingError(f'{error}\n  pip install "anastyle[deepspeed]", or launch without DeepSpeed.') from error
    kind = accelerator.distributed_type
    if kind not in SUPPORTED:
        raise ConfigError(f"{where}: {kind.value} is not supported. Launch with DDP or DeepSpeed, as launch/*.yaml do.")
    if by_deepspeed() and (kind != DistributedType.DEEPSPEED or accelerator.deepspeed_plugin is None):
        raise ConfigError(f"{where}: DeepSpeed is asked for and would not be used. Unset ACCELERATE_USE_CPU.")
    if int(os.environ.get("WORLD_SIZE") or 1) != accelerator.num_processes:
        raise ConfigError(f"{where}: launched as processes that do not know of each other. Use devices.ranks() first.")
    if precision == "fp16" and accelerator.device.type != "cuda":
        raise ConfigError(f"{where}.precision: fp16 needs a GPU. Use bf16 or no.")
    return accelerator


@contextmanager
def answering(where: str) -> Iterator[None]:
    """Say plainly that another rank is gone, where PyTorch tells of sockets.

    Raises:
        LostError: a rank of the block's collective operations did not answer.
    """
    try:
        yield
    except RuntimeError as error:
        if ranks().num_processes == 1 or not LOST.search(str(error)):
            raise
        raise LostError(
            f"{where}: another process is gone, or did not answer for {patience():.0f} s. All end here.\n"
            f"  {str(error).splitlines()[0][:200]}\n  The same command continues from the last checkpoint."
        ) from error


def agreed(value: T) -> T:
    """Return the first rank's value on every rank."""
    box = [value]
    if ranks().num_processes > 1:
        broadcast_object_list(box)
    return box[0]


@contextmanager
def together() -> Iterator[None]:
    """Leave a block when every rank has: however long one works alone, as long as its machine can be reached.

    Raises:
        AnastyleError: the block failed, here or on another rank; then it fails on all.
    """
    failure = None
    try:
        yield
    except LostError:
        raise
    except AnastyleError as error:
        failure = error
    said = meet("" if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    if any(said):
        raise AnastyleError(next(filter(None, said)))


def meet(word: str) -> list[str]:
    """Tell all ranks a word; return every rank's, once all have come."""
    state = ranks()
    if state.num_processes == 1:
        return [word]
    store = torch.distributed.distributed_c10d._get_default_store()  # it waits without a limit of time
    number = next(_meetings)  # the store's names are of this life of the ranks alone
    keys = [f"anastyle/{number}/{rank}" for rank in range(state.num_processes)]
    with answering("between two stages"):
        store.set(keys[state.process_index], word)
        while not store.check(keys):
            time.sleep(POLL)
        return [store.get(key).decode() for key in keys]


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
