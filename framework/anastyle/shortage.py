"""Out of memory, told with the numbers and the way out."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size

from anastyle.accounting.memory import free_memory
from anastyle.errors import ShortageError

ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ ?\w+)")  # as torch says it


@contextmanager
def memory_explained(stage: str, settings: Mapping[str, Any], device: torch.device) -> Iterator[None]:
    """Turn what an allocator raises inside the block into advice; any other error passes.

    Raises:
        ShortageError: there was not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
            raise
        asked = ASKED.search(str(error))
        free = free_memory(device) or psutil.virtual_memory().available
        amounts = f"{asked[1] if asked else 'more'} asked for, {free / 2**30:.1f} GiB free on {device}"
        lines = [f"stages.{stage}: out of memory: {amounts}.", *advice(stage, settings)]
        raise ShortageError("\n  ".join(lines)) from error


def advice(stage: str, settings: Mapping[str, Any]) -> list[str]:
    """Return what to type, so that less is needed."""
    batch, accumulate = settings.get("batch_size", 1), settings.get("accumulate")
    where = f"stages.{stage}"
    lines = ["Smaller images: data.image_size=... (256 is a quarter of 512)."]
    if stage == "diffuse":
        lines.insert(0, "Activations computed twice rather than kept: backbone.gradient_checkpointing=on")
    if batch > 1 and accumulate is not None:
        fewer = next(size for size in range(batch // 2, 0, -1) if batch % size == 0)
        words = f"{where}.batch_size={fewer} {where}.accumulate={accumulate * batch // fewer}"
        lines.insert(0, f"The same {batch * accumulate} images a step, fewer at a time: {words}")
    elif batch > 1:
        lines.insert(0, f"Fewer at a time: {where}.batch_size={batch // 2}")
    return lines
