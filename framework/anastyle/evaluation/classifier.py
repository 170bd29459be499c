"""A small classifier of images with many answers: the judge's network, and the trunk of the ``domain`` features."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

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


class Classifier(nn.Module):
    """One trunk, one answer per head. Images of any size are first brought to ``side`` pixels, antialiased.

    Arguments:
        heads: what is asked, and how many answers there are to it.
        width: F, the numbers that the answers are read off.
    """

    def __init__(self, heads: dict[str, int], *, width: int = 64, side: int = 64) -> None:
        super().__init__()
        if not heads:
            raise ValueError("a classifier needs at least one head")
        self.heads, self.width, self.side = dict(heads), width, side
        self.fine = nn.Sequential(*convolution(3, 16, 5, 2), *convolution(16, 48, 3, 2), Residual(48))
        self.where = nn.Conv2d(48, 1, 1)  # where the lesion is: taught by masks where there are any
        coarse, channels = [*convolution(49, 96, 3, 2), Residual(96)], 96
        for _ in range(max(0, (side // 8).bit_length() - 4)):  # down to about 8 x 8 cells
            coarse += [*convolution(channels, 128, 3, 2), Residual(128)]
            channels = 128
        self.coarse = nn.Sequential(*coarse)
        self.layout = nn.Sequential(*convolution(channels, 16, 1, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        # the features are normalised, so that distances on them have a scale of their own
        self.features = nn.Sequential(
            nn.Linear(16 * 16 + 2 * channels + 48, width, bias=False), nn.BatchNorm1d(width, affine=False)
        )
        self.answers = nn.ModuleList(nn.Linear(width, answers) for answers in heads.values())
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # faster on a CPU

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def look(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, F) of images (B, 3, H, W) in [-1, 1], and where they look, (B, 1, side/4, side/4)."""
        fine = self.fine(resized(image, self.side).contiguous(memory_format=torch.channels_last))
        where = self.where(fine)
        focus = where.sigmoid()
        inside = (fine * focus).sum(dim=(2, 3)) / (focus.sum(dim=(2, 3)) + 1)
        coarse = self.coarse(torch.cat([fine, focus], dim=1))
        pooled = [self.layout(coarse), coarse.mean(dim=(2, 3)), coarse.amax(dim=(2, 3)), inside]
        return self.features(torch.cat(pooled, dim=1)), where

    def decide(self, features: Tensor) -> dict[str, Tensor]:
        """Return each head's logits."""
        return {name: answer(F.relu(features)) for name, answer in zip(self.heads, self.answers, strict=True)}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.decide(self.look(image)[0])

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

        The augmentation keeps every factor what it is: a little gain, brightness and noise, no flips. A target of -1
        is not asked.
        """
        if len(images) < 2:
            raise DataError(f"a classifier needs two images or more to learn from; the split has {len(images)}")
        rng = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
        self.train()
        for _, index in zip(range(steps), draws(len(images), batch_size, rng), strict=False):
            image = augmented(images[index].float() / 127.5 - 1, rng).to(self.device)
            features, where = self.look(image)
            answers = self.decide(features)
            terms = [asked(answers[name], targets[name][index].to(self.device)) for name in self.heads]
            loss = torch.stack(terms).sum()
            if masks is not None:
                covered = F.adaptive_avg_pool2d(masks[index].float(), where.shape[-1]).to(self.device)
                loss = loss + 3 * F.binary_cross_entropy_with_logits(where, covered)
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
