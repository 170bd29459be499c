"""What painting took, counted and timed on the parts that painted: parameters, arithmetic, seconds, memory."""

import platform
from typing import NamedTuple

import torch

from anastyle.accounting.costs import GIB, flops, merged, passes
from anastyle.accounting.memory import measure
from anastyle.accounting.params import PAINTERS, count, named
from anastyle.devices import to_device
from anastyle.interfaces import Embedded
from anastyle.parts import Parts
from anastyle.settings import GenerateSettings


class Cost(NamedTuple):
    """What one image cost, and how that was found."""

    parameters: float  # of all that it takes, adapters merged
    gflop: float  # 2 per multiply-add
    seconds: float  # in a batch of the generate stage
    gib: float  # weights, and the activations of such a batch at their peak
    how: str


@torch.no_grad()
def cost(parts: Parts, embedded: Embedded, settings: GenerateSettings, seconds: float, device: torch.device) -> Cost:
    """Return what painting took.

    Arguments:
        embedded: some of the captions that were painted.
        seconds: that an image took.
    """
    backbone, painters = parts.backbone, [getattr(parts, name) for name in PAINTERS]
    batch = to_device(Embedded(*(part[: settings.batch_size] for part in embedded)), device)

    def ask(words: Embedded):
        return parts.fuser(parts.aligner(words))

    def noise(images: int) -> torch.Tensor:
        return torch.zeros(images, *backbone.noise_shape(), device=device)

    def predict(words: Embedded):
        images = len(words.tokens)
        return backbone.predict(noise(images), torch.zeros(images, dtype=torch.int64, device=device), ask(words))

    one = Embedded(*(part[:1] for part in batch))
    with merged(backbone):
        words = flops(lambda: ask(one))
        step, decode = flops(lambda: predict(one)) - words, flops(lambda: backbone.decode(noise(1)))
        peaks = measure(lambda: predict(batch)).peak, measure(lambda: backbone.decode(noise(len(batch.tokens)))).peak
    weights = sum(p.numel() * p.element_size() for part in painters for p in part.parameters())
    return Cost(
        float(sum(count(part) - named(part, "lora_") for part in painters)),
        (passes(settings) * step + decode + words) / 1e9, seconds,
        (weights + max(peaks)) / GIB, how(settings, device),
    )  # fmt: skip


def how(settings: GenerateSettings, device: torch.device) -> str:
    """Return under which circumstances an image was painted, in words."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{torch.get_num_threads()} threads of {platform.processor() or platform.machine()}"
    once = "one pass" if settings.guidance == 1 else "two passes"  # the weight of guidance itself costs nothing
    return f"{settings.steps} steps of {once}, batches of {settings.batch_size}, on {name}"
