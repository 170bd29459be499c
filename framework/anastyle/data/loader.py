"""The order in which records are met: a permutation an epoch, known beforehand for every step and any number of ranks.

Batch ``k`` depends on the seed, ``k`` and the global batch size alone, so a run that is resumed, or spread over other
ranks, meets the same records in the same order.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from anastyle.data.split import Split
from anastyle.errors import DataError
from anastyle.interfaces import Batch


def batches(
    split: Split,
    fields: Iterable[str],
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Yield this rank's batches for ever, from step ``start_step`` on.

    Every record comes once an epoch: a last short batch is filled from the next epoch.

    Arguments:
        fields: what ``Split.batch`` fills in.
        batch_size: of one rank; the global batch is ``batch_size * world_size``, of which rank r takes the r-th run.

    Raises:
        DataError: the split is empty.
    """
    if len(split) == 0:
        raise DataError(f"split '{split.name}' is empty: there is nothing to train on.")
    if batch_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"batch_size {batch_size} and rank {rank} of {world_size} make no batch")
    return _endless(split, frozenset(fields), batch_size, seed, start_step, rank, world_size)


def in_order(split: Split, fields: Iterable[str], *, batch_size: int) -> Iterator[Batch]:
    """Yield every record once, in the split's order; the last batch may be short."""
    asked = frozenset(fields)
    for start in range(0, len(split), batch_size):
        yield split.batch(range(start, min(start + batch_size, len(split))), asked)


def permutation(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order (n,) in which an epoch meets the records."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))


def _endless(
    split: Split, fields: frozenset[str], batch_size: int, seed: int, step: int, rank: int, world_size: int
) -> Iterator[Batch]:
    count = len(split)
    epochs: dict[int, Tensor] = {}
    while True:
        first = (step * world_size + rank) * batch_size
        positions = range(first, first + batch_size)
        needed = range(positions[0] // count, positions[-1] // count + 1)
        epochs = {e: epochs[e] if e in epochs else permutation(count, seed, e) for e in needed}
        yield split.batch(torch.stack([epochs[p // count][p % count] for p in positions]), fields)
        step += 1
