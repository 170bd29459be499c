"""A small classifier of images with many answers: the judge's network, and the trunk of the ``domain`` features."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from anastyle.checkpoint import tensors_hash
from anastyle.errors import DataError, MissingError
from anastyle.evaluation.lesion import View, extent, placed, polar, sample, square, views
from anastyle.evaluation.resizing import resized

RADII, ANGLES = 24, 96  # of an unrolled lesion
HARMONICS = 24  # of its 48 angles after the first convolution
PATCH = 0.375  # half the patch's side, in half image widths


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


class Look(NamedTuple):
    """What a classifier makes of images, and where it looked."""

    features: Tensor  # (B, F)
    where: Tensor  # (B, 1, side / 4, side / 4) logits of the lesion
    unrolled: Tensor  # (B, 1, radii, angles) logits of the lesion around its centre
    grid: Tensor  # (B, R, A, 2) where the image was unrolled, as ``grid_sample`` has it


class Unrolled(nn.Module):
    """A convolution over (B, C, radii, angles), closed along the angles: what turns in the image shifts here."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.edge = size // 2
        self.convolution = nn.Conv2d(inputs, outputs, size, stride, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        closed = F.pad(x, (self.edge, self.edge, 0, 0), mode="circular")
        return F.relu(self.norm(self.convolution(F.pad(closed, (0, 0, self.edge, self.edge)))))


class Classifier(nn.Module):
    """A glance at the whole image, the lesion unrolled around its centre, a patch of it, and an answer per head.

    The glance says where the lesion is and how large. Unrolled, a turn is a shift, which the magnitudes of a Fourier
    transform along the angles do not see: an oval is the second harmonic, five spikes the fifth, whatever their
    direction. The patch keeps the image's own scale, for texture. Images of any size are first brought to ``side``
    pixels, antialiased.

    Arguments:
        heads: what is asked, and how many answers there are to it.
        width: F, the numbers that the answers are read off.
    """

    rings: Tensor
    patch: Tensor

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
        self.around = nn.Sequential(Unrolled(4, 16, 5, (2, 2)), Unrolled(16, 32, 3, (2, 1)))
        self.outline = nn.Conv2d(32, 1, 1)  # taught by masks too
        self.farther = Unrolled(32, 32, 3, (2, 1))
        self.surface = nn.Sequential(*convolution(4, 24, 5, 2), *convolution(24, 48, 3, 2), *convolution(48, 48, 3, 1))
        seen = 16 * 16 + 2 * 64 + 32 + (32 * 3 + 1) * HARMONICS + 32 * 3 + 2 * 48
        # the features are normalised, so that distances on them have a scale of their own
        self.features = nn.Sequential(nn.Linear(seen, width, bias=False), nn.BatchNorm1d(width, affine=False))
        self.answers = nn.ModuleList(nn.Linear(width, answers) for answers in heads.values())
        self.register_buffer("rings", polar(RADII, ANGLES), persistent=False)
        self.register_buffer("patch", PATCH * square(max(16, 3 * side // 8)), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def look(self, image: Tensor, view: View | None = None) -> Look:
        """Return what is seen in images (B, 3, H, W) in [-1, 1]; without a view, lesions are as they lie."""
        image = resized(image, self.side)
        fine = self.fine(image)
        where = self.where(fine)
        focus = where.sigmoid()
        inside = (fine * focus).sum(dim=(2, 3)) / (focus.sum(dim=(2, 3)) + 1)
        coarse = self.coarse(torch.cat([fine, focus], dim=1))
        hint = focus.detach()
        centre, radius = extent(hint[:, 0])
        grid = placed(self.rings, centre, radius, view)
        around = self.around(torch.cat([F.instance_norm(sample(image, grid)), sample(hint, grid)], dim=1))
        outline = self.outline(around)  # (B, 1, 6, 48)
        farther = self.farther(around)  # (B, 32, 3, 48)
        patch = placed(self.patch, centre, torch.ones_like(radius), view)
        surface = self.surface(even(sample(image, patch), sample(hint, patch)))
        profile = outline.sigmoid().mean(dim=2, keepdim=True)  # (B, 1, 1, 48): the lesion's radius at each angle
        pooled = [self.layout(coarse), *both(coarse), inside, harmonics(farther), harmonics(profile)]
        pooled += [farther.amax(dim=3).flatten(1), *both(surface)]
        return Look(self.features(torch.cat(pooled, dim=1)), where, outline, grid)

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

        The augmentation keeps every factor what it is: a little gain, brightness and noise; only the closer looks are
        turned and mirrored. A target of -1 is not asked.
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
        return tensors_hash(self.state_dict(), json.dumps(self.heads))[:8]


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


def harmonics(unrolled: Tensor) -> Tensor:
    """Return log magnitudes of the first harmonics along the angles of (B, C, radii, angles), flat."""
    return (torch.fft.rfft(unrolled, norm="ortho").abs()[..., :HARMONICS] + 0.05).log().flatten(1)


def even(image: Tensor, focus: Tensor) -> Tensor:
    """Return the surface of a lesion (B, 3, h, w), its own level and contrast taken out, and the focus (B, 1, h, w)."""
    share = focus / (focus.sum(dim=(2, 3), keepdim=True) + 1)
    apart = (image - (image * share).sum(dim=(2, 3), keepdim=True)) * focus
    spread = (apart**2).sum(dim=(2, 3), keepdim=True) / (focus.sum(dim=(2, 3), keepdim=True) + 1)
    return torch.cat([apart / (spread + 1e-3).sqrt(), focus], dim=1)


def outlined(seen: Look, mask: Tensor) -> list[Tensor]:
    """Return how far both outlines are from the masks (B, 1, side, side)."""
    whole = F.adaptive_avg_pool2d(mask, seen.where.shape[-1])
    radii, angles = seen.unrolled.shape[-2:]
    around = F.adaptive_avg_pool2d(sample(mask, seen.grid), (radii, angles))
    logits, truth = (seen.where, seen.unrolled), (whole, around.clamp(0, 1))
    return [3 * F.binary_cross_entropy_with_logits(a, b) for a, b in zip(logits, truth, strict=True)]


def both(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the maximum of a map (B, C, h, w), each (B, C)."""
    return x.mean(dim=(2, 3)), x.amax(dim=(2, 3))
