"""A split of small made-up images, so that measuring can be tested without a prepared set."""

import torch
from torch import Tensor


class FakeSplit:
    """Squares: bright or dark (the label), left or right (factor ``place``), grainy or clean (factor ``noise``)."""

    def __init__(self, n: int, seed: int, *, size: int = 16, factors: bool = True, classes: int = 2) -> None:
        rng = torch.Generator().manual_seed(seed)
        place, noise = (torch.randint(2, (n,), generator=rng) for _ in range(2))
        self.labels = torch.randint(classes, (n,), generator=rng)
        self.factors = {"place": place, "noise": noise} if factors else {}
        self.masks = torch.zeros(n, 1, size, size)
        self.images = torch.zeros(n, 3, size, size)
        for row in range(n):
            left = size // 8 + (size // 2) * int(place[row])
            at = (slice(size // 4, 3 * size // 4), slice(left, left + 3 * size // 8))
            self.masks[(row, 0, *at)] = 1
            self.images[(row, slice(None), *at)] = 0.8 if self.labels[row] else -0.8
        self.images += 0.02 * torch.randn(self.images.shape, generator=rng)
        self.images += 0.25 * noise[:, None, None, None] * torch.randn(self.images.shape, generator=rng)
        self.images.clamp_(-1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int, /) -> Tensor:
        return self.images[index]

    def mask(self, index: int, /) -> Tensor | None:
        return self.masks[index]

    def bytes(self, rows: list[int] | None = None) -> Tensor:
        """Return images as uint8."""
        chosen = self.images if rows is None else self.images[rows]
        return ((chosen + 1) * 127.5).round().to(torch.uint8)
