"""Named streams of chance: one root seed, and a stream for every name.

A stream's seed is a hash of the root and its names, so adding a stream shifts no other one.
"""

import hashlib

import torch
from torch import Tensor


def seed_for(root: int, *names: object) -> int:
    """Return the seed of a named stream, in [0, 2**63): the same in every process, on every machine.

    Arguments:
        root: the run's seed.
        names: words and numbers; their order and their borders count, ("ab", "c") is not ("a", "bc").
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in (root, *names):
        word = str(name).encode()
        digest.update(len(word).to_bytes(4, "big") + word)
    return int.from_bytes(digest.digest(), "big") >> 1


def noise(shape: tuple[int, ...], root: int, name: str, keys: list[str], step: int) -> Tensor:
    """Return standard normal noise (B, *shape) for B samples, float32 on the CPU.

    The noise of a sample depends on its key, the stream's name and the step, never on its neighbours: neither the batch
    size nor the number of ranks changes it.
    """
    generator = torch.Generator()
    samples = [torch.randn(shape, generator=generator.manual_seed(seed_for(root, name, key, step))) for key in keys]
    return torch.stack(samples) if samples else torch.empty(0, *shape)
