"""The Inception of the Fréchet inception distance (Szegedy et al. 2015, as TensorFlow released it that December).

Modules are called as in the files that carry its weights for torch. Three things set it apart from the usual Inception
v3: average pooling leaves the padding out of the average, the last block pools by maximum, and the weights.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]
ONE, THREE, FIVE = (1, 1), (3, 3), (5, 5)
WIDE, TALL = (1, 7), (7, 1)
FLAT, HIGH = (1, 3), (3, 1)
Pool = Literal["average", "max", "halve"]


class Step(NamedTuple):
    """One convolution of a block: its module's name, and what it gives."""

    name: str
    outputs: int
    size: Size = ONE
    stride: int = 1


Path = list[tuple[Step, ...]]  # convolutions after one another; of a tuple, both take the same and give side by side


class Unit(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: Size = ONE, stride: int = 1, *, padded: bool = True) -> None:
        super().__init__()
        padding = (size[0] // 2, size[1] // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Block(nn.Module):
    """Paths from one input whose outputs are laid after one another, a pooling the last of them."""

    def __init__(self, inputs: int, paths: list[Path], pool: Pool, pooled: int = 0) -> None:
        super().__init__()
        self.pool: Pool = pool
        self.names = [[[step.name for step in steps] for steps in path] for path in paths]
        for path in paths:
            width = inputs
            for steps in path:
                for step in steps:
                    unit = Unit(width, step.outputs, step.size, step.stride, padded=step.stride == 1)
                    self.add_module(step.name, unit)
                width = sum(step.outputs for step in steps)
        if pooled:
            self.branch_pool = Unit(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.follow(names, x) for names in self.names]
        return torch.cat([*found, self.pooled(x)], dim=1)

    def follow(self, names: list[list[str]], x: Tensor) -> Tensor:
        """Return what a path makes of its input."""
        for side_by_side in names:
            x = torch.cat([self.get_submodule(name)(x) for name in side_by_side], dim=1)
        return x

    def pooled(self, x: Tensor) -> Tensor:
        """Return the last path's output."""
        if self.pool == "halve":
            return F.max_pool2d(x, 3, stride=2)
        if self.pool == "max":
            return self.branch_pool(F.max_pool2d(x, 3, stride=1, padding=1))
        return self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))


class Inception(nn.Module):
    """Images (B, 3, 299, 299), (pixel - 128) / 128, to the last pooling's features (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, THREE, 2, padded=False)
        self.Conv2d_2a_3x3 = Unit(32, 32, THREE, padded=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, THREE)
        self.Conv2d_3b_1x1 = Unit(64, 80)
        self.Conv2d_4a_3x3 = Unit(80, 192, THREE, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = fine(192, 32), fine(256, 64), fine(288, 64)
        self.Mixed_6a = first_halving(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (middle(width) for width in (128, 160, 160, 192))
        self.Mixed_7a = second_halving(768)
        self.Mixed_7b, self.Mixed_7c = coarse(1280, "average"), coarse(2048, "max")

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))  # (B, 192, 71, 71)
        x = F.max_pool2d(x, 3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)  # 35, then 17, then 8 pixels a side
        return x.mean(dim=(2, 3))


def fine(inputs: int, pooled: int) -> Block:
    """Return a block at 35 pixels; 224 + ``pooled`` channels."""
    five: Path = [(Step("branch5x5_1", 48),), (Step("branch5x5_2", 64, FIVE),)]
    three: Path = [
        (Step("branch3x3dbl_1", 64),),
        (Step("branch3x3dbl_2", 96, THREE),),
        (Step("branch3x3dbl_3", 96, THREE),),
    ]
    return Block(inputs, [[(Step("branch1x1", 64),)], five, three], "average", pooled)


def first_halving(inputs: int) -> Block:
    """Return the block from 35 to 17 pixels; 480 channels and its input's."""
    three: Path = [(Step("branch3x3", 384, THREE, 2),)]
    double: Path = [
        (Step("branch3x3dbl_1", 64),),
        (Step("branch3x3dbl_2", 96, THREE),),
        (Step("branch3x3dbl_3", 96, THREE, 2),),
    ]
    return Block(inputs, [three, double], "halve")


def middle(width: int) -> Block:
    """Return a block at 17 pixels, from 768 to 768 channels, ``width`` within."""
    once: Path = [(Step("branch7x7_1", width),), (Step("branch7x7_2", width, WIDE),), (Step("branch7x7_3", 192, TALL),)]
    twice: Path = [
        (Step("branch7x7dbl_1", width),),
        (Step("branch7x7dbl_2", width, TALL),),
        (Step("branch7x7dbl_3", width, WIDE),),
        (Step("branch7x7dbl_4", width, TALL),),
        (Step("branch7x7dbl_5", 192, WIDE),),
    ]
    return Block(768, [[(Step("branch1x1", 192),)], once, twice], "average", 192)


def second_halving(inputs: int) -> Block:
    """Return the block from 17 to 8 pixels; 512 channels and its input's."""
    three: Path = [(Step("branch3x3_1", 192),), (Step("branch3x3_2", 320, THREE, 2),)]
    seven: Path = [
        (Step("branch7x7x3_1", 192),),
        (Step("branch7x7x3_2", 192, WIDE),),
        (Step("branch7x7x3_3", 192, TALL),),
        (Step("branch7x7x3_4", 192, THREE, 2),),
    ]
    return Block(inputs, [three, seven], "halve")


def coarse(inputs: int, pool: Pool) -> Block:
    """Return a block at 8 pixels; 2048 channels."""
    once: Path = [
        (Step("branch3x3_1", 384),),
        (Step("branch3x3_2a", 384, FLAT), Step("branch3x3_2b", 384, HIGH)),
    ]
    twice: Path = [
        (Step("branch3x3dbl_1", 448),),
        (Step("branch3x3dbl_2", 384, THREE),),
        (Step("branch3x3dbl_3a", 384, FLAT), Step("branch3x3dbl_3b", 384, HIGH)),
    ]
    return Block(inputs, [[(Step("branch1x1", 320),)], once, twice], pool, 192)
