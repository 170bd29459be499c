"""Standard units: what an encoder's numbers are brought to before words are aligned with them."""

import torch
from torch import Tensor, nn

SMALLEST_STD = 1e-4  # a number that hardly varies is not blown up


class RunningScale(nn.Module):
    """Mean and standard deviation of all it was ever shown: settled after the first pass over the data."""

    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("square", torch.zeros(size))  # sum of squared deviations
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Count in the rows of (B, size) (Chan et al. 1979)."""
        values = values.float()
        total = self.count + len(values)
        shift = values.mean(dim=0) - self.mean
        self.square += (values - values.mean(dim=0)).square().sum(dim=0)
        self.square += shift**2 * self.count * len(values) / total
        self.mean += shift * len(values) / total
        self.count.copy_(total)

    def forward(self, factor: Tensor) -> Tensor:
        """Return a factor (B, N, D) less its mean, in units of its standard deviation; before any update, as it is."""
        if self.count == 0:
            return factor
        std = (self.square / self.count).sqrt().clamp(min=SMALLEST_STD)
        return ((factor.flatten(1) - self.mean) / std).view_as(factor)
