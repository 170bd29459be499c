"""The networks whose training shows what images are worth, and the one recipe they are trained by.

The recipe is a small modern one: AdamW, a one-cycle rate, label smoothing, flips, crops and colour, an average of the
weights. Classes are not weighted: the paper's rows, one of which is a classifier that always answers the commonest
class, leave no room for it.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anastyle.errors import ConfigError
from anastyle.evaluation.classifier import Residual, both, convolution
from anastyle.evaluation.judge import shown
from anastyle.evaluation.utility.arms import Pool

ZOOM = 0.25  # of an image's width, at most, that a crop leaves out
COLOUR = 0.1  # that contrast and brightness of each channel move by, at most


@dataclass(frozen=True)
class Recipe:
    """How every network of a comparison is trained, whatever its images."""

    steps: int = 400
    """Optimizer steps, the same in every arm."""
    batch_size: int = 32
    lr: float = 5e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1
    """Of the labels."""
    ema: float = 0.98
    """Decay of the average of the weights that is tested. Grows as (1 + t) / (10 + t)."""
    width: int = 16
    """Channels of the first layer."""
    flips: Literal["none", "horizontal", "both"] = "both"
    """Where left and right, or top and bottom, mean something, an image must not be flipped."""

    def words(self) -> str:
        """Return the recipe for protocols."""
        flips = {"none": "no flips", "horizontal": "horizontal flips", "both": "flips"}[self.flips]
        return (
            f"AdamW at {self.lr:g} one-cycle, weight decay {self.weight_decay:g}, "
            f"average of weights {self.ema:g}, {flips}, crops, colour"
        )

    def __post_init__(self) -> None:
        if min(self.steps, self.width) < 1 or self.batch_size < 2:
            raise ConfigError("utility: steps and width must be at least 1, batch_size at least 2")


class ConvNet(nn.Module):
    """A classifier of images of about ``side`` pixels: (B, 3, s, s) in [-1, 1] to logits (B, classes)."""

    def __init__(self, classes: int, *, width: int, side: int) -> None:
        super().__init__()
        halvings = max(2, (side // 8).bit_length() - 1)  # down to about 8 x 8 cells
        widths = [width * 2 ** min(level, 2) for level in range(halvings)]
        layers = [*convolution(3, width, 5, 2), Residual(width)]
        for inputs, outputs in pairwise(widths):
            layers += [*convolution(inputs, outputs, 3, 2), Residual(outputs)]
        self.trunk = nn.Sequential(*layers)
        self.answer = nn.Linear(2 * widths[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.answer(torch.cat(both(self.trunk(image)), dim=1))


class UNet(nn.Module):
    """A segmenter (Ronneberger et al. 2015), small: images (B, 3, s, s) in [-1, 1] to logits (B, 1, s, s).

    It works at half the resolution, which is five times as fast on a CPU.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        widths = list(pairwise([width, 2 * width, 4 * width]))
        self.first = nn.Sequential(*convolution(3, width, 5, 2), Residual(width))
        self.down = nn.ModuleList(nn.Sequential(*convolution(a, b, 3, 2), Residual(b)) for a, b in widths)
        self.up = nn.ModuleList(nn.Sequential(*convolution(a + b, a, 1, 1), Residual(a)) for a, b in reversed(widths))
        self.answer = nn.Conv2d(width, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        seen = [self.first(image)]
        for down in self.down:
            seen.append(down(seen[-1]))
        x = seen.pop()
        for up in self.up:
            beside = seen.pop()
            x = up(torch.cat([F.interpolate(x, size=beside.shape[-2:]), beside], dim=1))
        return F.interpolate(self.answer(x), size=image.shape[-2:], mode="bilinear", align_corners=False)


def trained(
    build: Callable[[], nn.Module],
    pool: Pool,
    loss: Callable[[nn.Module, Tensor, Pool], Tensor],
    recipe: Recipe,
    seed: int,
    device: str | torch.device,
) -> nn.Module:
    """Return a network trained on a pool, its weights averaged; the same seed gives the same on one machine.

    Arguments:
        loss: of a network, images (B, 3, s, s) in [-1, 1] and what else the batch holds.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build().to(device)
    average = deepcopy(network)
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=recipe.steps, pct_start=0.2)
    network.train()
    for step, rows in zip(range(recipe.steps), batches(len(pool.labels), recipe.batch_size, rng), strict=False):
        image, batch = augmented(on(pool.take(rows), device), recipe.flips, rng)
        optimizer.zero_grad()
        loss(network, image, batch).backward()
        optimizer.step()
        schedule.step()
        torch._foreach_lerp_(floats(average), floats(network), 1 - min(recipe.ema, (1 + step) / (10 + step)))
    return average.eval()


def batches(count: int, size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield rows for ever, each once an epoch; a batch is full however few rows there are, so that arms see as much."""
    order = torch.empty(0, dtype=torch.long)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=rng)])
        yield order[:size]
        order = order[size:]


def floats(network: nn.Module) -> list[Tensor]:
    """Return weights and running statistics, whatever is an average of something."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]


@torch.no_grad()
def answered(network: nn.Module, images: Tensor, device: str | torch.device) -> Tensor:
    """Return a trained network's logits for uint8 images (n, 3, s, s), on the CPU."""
    return torch.cat([network(image.to(device)).cpu() for image in shown(images)])


def on(pool: Pool, device: str | torch.device) -> Pool:
    """Return the pool on a device."""
    return Pool(pool.images.to(device), pool.labels.to(device), None if pool.masks is None else pool.masks.to(device))


def augmented(pool: Pool, flips: str, rng: torch.Generator) -> tuple[Tensor, Pool]:
    """Return images (B, 3, s, s) in [-1, 1], flipped, cropped and recoloured, and the batch with its masks moved."""
    image = pool.images.float() / 127.5 - 1
    count, device = len(image), image.device
    uniform = torch.rand(10, count, generator=rng)
    zoom = 1 - ZOOM * uniform[0]
    mirrored = [1 - 2 * (draw < 0.5).float() for draw in uniform[1:3]]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = zoom * (mirrored[0] if flips != "none" else 1)
    theta[:, 1, 1] = zoom * (mirrored[1] if flips == "both" else 1)
    theta[:, :, 2] = ((1 - zoom) * (2 * uniform[3:5] - 1)).T  # the crop stays within the image
    grid = F.affine_grid(theta, list(image.shape), align_corners=False).to(device)
    gain, shift = (2 * COLOUR * (part.T[:, :, None, None] - 0.5).to(device) for part in (uniform[4:7], uniform[7:10]))
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    masks = pool.masks
    if masks is not None:
        masks = F.grid_sample(masks.float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return image * (1 + gain) + shift, pool._replace(masks=masks)
