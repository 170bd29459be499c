"""A small classifier of images with many answers: the judge's network, and the trunk of the ``domain`` features."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from anastyle.errors import DataError, MissingError


class Residual(nn.Module):
    """A depthwise-separable convolution around which its input also passes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            *convolution(channels, channels, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class View(NamedTuple):
    """How each close-up is turned, mirrored, zoomed and moved: nothing of that changes what a lesion is."""

    turn: Tensor  # (B, 2, 2)
    shift: Tensor  # (B, 2), in half image widths


class Look(NamedTuple):
    """What a classifier makes of images, and where it looked."""

    features: Tensor  # (B, F)
    where: Tensor  # (B, 1, side / 4, side / 4) logits of the lesion
    outline: Tensor  # (B, 1, h, h) logits of the lesion in the close-up
    grid: Tensor  # (B, H, H, 2) where the close-up was taken, as ``grid_sample`` has it


class Classifier(nn.Module):
    """A glance at the whole image, a close-up of the lesion, and an answer per head from both.

    The glance says where the lesion is. The close-up is centred on it, scaled to it and, in training, turned at
    random: shape and texture are learned whatever the lesion's place, size and direction, which the glance keeps.
    Images of any size are first brought to ``side`` pixels, antialiased.

    Arguments:
        heads: what is asked, and how many answers there are to it.
        width: F, the numbers that the answers are read off.
    """

    def __init__(self, heads: dict[str, int], *, width: int = 64, side: int = 64) -> None:
        super().__init__()
        if not heads:
            raise ValueError("a classifier needs at least one head")
        self.heads, self.width, self.side = dict(heads), width, side
        self.fine = nn.Sequential(*convolution(3, 16, 5, 2), *convolution(16, 32, 3, 2), Residual(32))
        self.where = nn.Conv2d(32, 1, 1)  # taught by masks where there are any
        coarse = [*convolution(33, 64, 3, 2), Residual(64)]
        for _ in range(max(0, (side // 8).bit_length() - 4)):  # down to about 8 x 8 cells
            coarse += [*convolution(64, 64, 3, 2), Residual(64)]
        self.coarse = nn.Sequential(*coarse)
        self.layout = nn.Sequential(*convolution(64, 16, 1, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.near = nn.Sequential(*convolution(3, 24, 5, 2), *convolution(24, 64, 3, 2), Residual(64))
        self.outline = nn.Conv2d(64, 4, 1)  # four pixels a cell; taught by masks too
        self.nearer = nn.Sequential(*convolution(68, 96, 3, 2), Residual(96))
        # the features are normalised, so that distances on them have a scale of their own
        self.features = nn.Sequential(
            nn.Linear(16 * 16 + 2 * 64 + 32 + 2 * 96, width, bias=False), nn.BatchNorm1d(width, affine=False)
        )
        self.answers = nn.ModuleList(nn.Linear(width, answers) for answers in heads.values())
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # faster on a CPU

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def look(self, image: Tensor, view: View | None = None) -> Look:
        """Return what is seen in images (B, 3, H, W) in [-1, 1]; without a view, close-ups are as they lie."""
        image = resized(image, self.side).contiguous(memory_format=torch.channels_last)
        fine = self.fine(image)
        where = self.where(fine)
        focus = where.sigmoid()
        inside = (fine * focus).sum(dim=(2, 3)) / (focus.sum(dim=(2, 3)) + 1)
        coarse = self.coarse(torch.cat([fine, focus], dim=1))
        grid = close_up(focus.detach(), 3 * self.side // 4, view)
        near = self.near(sample(image, grid))
        outline = self.outline(near)
        nearer = self.nearer(torch.cat([near, outline.sigmoid()], dim=1))
        pooled = [self.layout(coarse), *both(coarse), inside, *both(nearer)]
        return Look(self.features(torch.cat(pooled, dim=1)), where, F.pixel_shuffle(outline, 2), grid)

    def decide(self, features: Tensor) -> dict[str, Tensor]:
        """Return each head's logits."""
        return {name: answer(F.relu(features)) for name, answer in zip(self.heads, self.answers, strict=True)}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.decide(self.look(image).features)

    def teach(
        self,
        images: Tensor,
        targets: dict[str, Tensor],
        masks: Tensor | None = None,
        *,
        steps: int,
        seed: int,
        batch_size: int = 64,
        lr: float = 5e-3,
    ) -> None:
        """Train on uint8 images (n, 3, side, side); the same seed gives the same weights on one machine.

        The augmentation keeps every factor what it is: a little gain, brightness and noise; only close-ups are turned
        and mirrored. A target of -1 is not asked.
        """
        if len(images) < 2:
            raise DataError(f"a classifier needs two images or more to learn from; the split has {len(images)}")
        rng = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
        self.train()
        for _, index in zip(range(steps), draws(len(images), batch_size, rng), strict=False):
            image = augmented(images[index].float() / 127.5 - 1, rng).to(self.device)
            seen = self.look(image, views(len(index), rng, image.device))
            answers = self.decide(seen.features)
            terms = [asked(answers[name], targets[name][index].to(image.device)) for name in self.heads]
            if masks is not None:
                terms += outlined(seen, masks[index].to(image.device).float())
            loss = torch.stack(terms).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.eval()

    def save(self, path: Path) -> None:
        """Write the weights and what they answer, without pickle."""
        about = json.dumps({"heads": self.heads, "width": self.width, "side": self.side})
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, str(path), {"classifier": about})

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read what ``save`` wrote.

        Raises:
            MissingError: there is no such file.
            DataError: the file holds something else.
        """
        if not Path(path).is_file():
            raise MissingError(f"{path}: there is no trained classifier. Run the evaluate stage again to train it.")
        try:
            with safe_open(str(path), "pt") as file:
                about = json.loads(file.metadata()["classifier"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            model = cls(about["heads"], width=about["width"], side=about["side"])
            model.load_state_dict(tensors)
        except Exception as error:
            words = f"{path}: not a classifier of this version ({str(error)[:120]})."
            raise DataError(f"{words} Delete it; it will be trained again.") from error
        return model.eval()

    def fingerprint(self) -> str:
        """Name the network by its weights, eight hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(self.heads).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:8]


def resized(image: Tensor, side: int) -> Tensor:
    """Return images (B, 3, side, side): antialiased bicubic, the one resize of every instrument."""
    if image.shape[-2:] == (side, side):
        return image
    return F.interpolate(image, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def convolution(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
    """Return convolution, normalisation and activation."""
    return [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def draws(count: int, batch_size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of positions for ever, each position once an epoch."""
    size, order = min(batch_size, count), torch.empty(0, dtype=torch.long)
    while True:
        if len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=rng)])
        yield order[:size]
        order = order[size:]


def augmented(image: Tensor, rng: torch.Generator) -> Tensor:
    """Return images with a little gain, brightness and noise, below what any factor turns on."""
    gain, shift = (0.1 * (torch.rand(len(image), 1, 1, 1, generator=rng) - 0.5) for _ in range(2))
    return image * (1 + gain) + shift + 0.01 * torch.randn(image.shape, generator=rng)


def asked(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of the known answers; none known costs nothing."""
    if not (target >= 0).any():
        return logits.sum() * 0
    return F.cross_entropy(logits, target, ignore_index=-1)


def close_up(focus: Tensor, size: int, view: View | None = None) -> Tensor:
    """Return the grid (B, size, size, 2) centred on where the focus (B, 1, h, w) lies and scaled to its extent."""
    weight = focus[:, 0] ** 2  # (B, h, w): certainty counts
    total = weight.sum(dim=(1, 2)) + 1e-6
    y, x = (torch.linspace(-1, 1, 2 * n + 1, device=focus.device)[1::2] for n in focus.shape[-2:])
    centre = (
        torch.stack([(weight.sum(dim=1) * x).sum(dim=1), (weight.sum(dim=2) * y).sum(dim=1)], dim=1) / total[:, None]
    )
    area = 4 * focus.mean(dim=(1, 2, 3))  # the image is 2 x 2
    reach = 1.9 * (area / torch.pi).sqrt().clamp(0.15, 0.65)  # beyond the tips of a star
    axis = torch.linspace(-1, 1, 2 * size + 1, device=focus.device)[1::2]
    plane = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)  # (size, size, 2)
    if view is None:
        return centre[:, None, None] + reach[:, None, None, None] * plane
    turned = torch.einsum("bij,hwj->bhwi", view.turn, plane)
    return (centre + view.shift)[:, None, None] + reach[:, None, None, None] * turned


def sample(image: Tensor, grid: Tensor) -> Tensor:
    """Return what an image (B, C, H, W) shows at a grid (B, h, w, 2)."""
    seen = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return seen.contiguous(memory_format=torch.channels_last)


def views(count: int, rng: torch.Generator, device: torch.device) -> View:
    """Return random views: any angle, half of them mirrored, a tenth nearer or farther, a little aside."""
    angle = 2 * torch.pi * torch.rand(count, generator=rng)
    zoom = 0.9 + 0.2 * torch.rand(count, generator=rng)
    mirror = torch.where(torch.rand(count, generator=rng) < 0.5, -1.0, 1.0)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    turn = torch.stack([torch.stack([cos * mirror, -sin], dim=1), torch.stack([sin * mirror, cos], dim=1)], dim=1)
    return View(turn.to(device), (0.06 * (torch.rand(count, 2, generator=rng) - 0.5)).to(device))


def outlined(seen: Look, mask: Tensor) -> list[Tensor]:
    """Return how far both outlines are from the masks (B, 1, side, side)."""
    whole = F.adaptive_avg_pool2d(mask, seen.where.shape[-1])
    near = F.adaptive_avg_pool2d(sample(mask, seen.grid), seen.outline.shape[-1]).clamp(0, 1)
    logits, truth = (seen.where, seen.outline), (whole, near)
    return [3 * F.binary_cross_entropy_with_logits(a, b) for a, b in zip(logits, truth, strict=True)]


def both(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the maximum of cells (B, C, h, w), each (B, C)."""
    return cells.mean(dim=(2, 3)), cells.amax(dim=(2, 3))
