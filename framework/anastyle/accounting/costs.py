"""What a run computes and needs on a card, found on the meta device: FLOPs (2 per multiply-add) and memory.

Arithmetic, not measurement: attention is counted as a fused kernel, half precision as if everything were in it.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from anastyle.accounting.memory import Memory, measure
from anastyle.config import typed
from anastyle.errors import ConfigError, did_you_mean
from anastyle.experiment import Run
from anastyle.interfaces import Batch, Condition, Embedded
from anastyle.settings import GenerateSettings
from anastyle.stages.settings import schema

WORDS = 128  # of the caption that is accounted for
GIB = 1 << 30
CARDS = {"A30": 24, "A100-40": 40, "A100-80": 80, "H100": 80, "H200": 140}  # GiB
USABLE = 0.92  # of a card: the rest goes to the driver and to gaps between allocations
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

Parts = dict[str, Any]


class Card(NamedTuple):
    """A GPU to plan for."""

    name: str
    gib: float


def card(text: str) -> Card:
    """Return the card of a name, or of a number of GiB.

    Raises:
        ConfigError: it is neither.
    """
    known = {name.lower(): name for name in CARDS}
    if text.lower() in known:
        name = known[text.lower()]
        return Card(name, CARDS[name])
    if re.fullmatch(r"\d+(\.\d+)?", text) and float(text) > 0:
        return Card("card", float(text))
    raise ConfigError(
        f"--card {text}: no such card.{did_you_mean(text, CARDS)}\n  known: {', '.join(CARDS)}, or a number of GiB"
    )


def flops(call: Callable[[], Any]) -> int:
    """Return the floating-point operations of a computation."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def condition(parts: Parts, count: int = 1) -> Condition:
    """Return what the backbone attends to for captions of ``WORDS`` words; shapes without numbers."""
    dims = parts["embedder"].dims
    tokens = torch.empty(count, WORDS, dims.token, device="meta")
    mask = torch.ones(count, WORDS, dtype=torch.bool, device="meta")
    embedded = Embedded(tokens, mask, torch.empty(count, dims.pooled, device="meta"))
    return parts["fuser"](parts["aligner"](embedded))


def batch(parts: Parts, count: int, image_size: int, step: int = 1) -> Batch:
    """Return images and latents of a batch; shapes without numbers."""
    images = torch.empty(count, 3, image_size, image_size, device="meta")
    made = Batch([""] * count, torch.zeros(count, dtype=torch.int64, device="meta"), image=images, step=step)
    made.mask = images[:, :1]
    made.latent = parts["backbone"].encode(made)
    return made


def shapes(parts: Parts, image_size: int) -> Iterator[tuple[str, str]]:
    """Yield what flows between the parts, for one image."""
    encoder, backbone, fused = parts.get("encoder"), parts["backbone"], condition(parts)
    if encoder is not None:
        side = getattr(encoder.config, "size", None) or image_size  # it may work at a side of its own
        shown = encoder.eval().describe(torch.empty(1, 3, side, side, device="meta"))
        yield "anatomy", _shape(shown.factors.anatomy)
        yield "style", _shape(shown.factors.style)
        if shown.maps is not None:
            yield "anatomy maps", _shape(shown.maps)
    yield "condition tokens", _shape(fused.tokens)
    yield "condition mask", _shape(fused.mask)
    yield "latent", str(tuple(backbone.noise_shape()))


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape[1:]))


def computation(run: Run, parts: Parts) -> Iterator[tuple[str, int]]:
    """Yield the FLOPs of one image, row by row."""
    size, backbone = run.config["data"]["image_size"], parts["backbone"]
    one, asked, noise = batch(parts, 1, size), condition(parts), _noise(backbone)
    stages = run.config["stages"]
    with torch.no_grad(), merged(backbone):
        step = flops(lambda: backbone.predict(noise, _timestep(1), asked))
        decode = flops(lambda: backbone.decode(noise))
        text = flops(lambda: parts["embedder"].rehearse(WORDS)) + flops(lambda: condition(parts))
        yield f"backbone, forward, {asked.tokens.shape[1]} condition tokens", step
        yield "autoencoder, encode", flops(lambda: backbone.encode(one))
        yield "autoencoder, decode", decode
        yield f"caption of {WORDS} words to condition", text
    backbone.train()
    yield "diffuse, one image of a step, latents cached", flops(lambda: loss(parts, one).backward())
    if stages.get("generate") is not None:
        settings = typed(schema("generate"), stages["generate"], "stages.generate")
        name = f"sampled image, {settings.steps} steps, guidance {settings.guidance:g}, merged"
        yield name, passes(settings) * step + decode + text


def passes(settings: GenerateSettings) -> int:
    """Return how often the backbone is asked for one image."""
    return settings.steps * (1 if settings.guidance == 1 else 2)


def loss(parts: Parts, images: Batch) -> Tensor:
    """Return the sum of all denoising terms."""
    return torch.stack(list(parts["backbone"].losses(images, condition(parts, len(images.keys))).values())).sum()


@contextmanager
def merged(module: nn.Module) -> Iterator[None]:
    """Leave adapters out of what is computed, as once they are merged."""
    adapted = [layer for layer in module.modules() if hasattr(layer, "base_layer")]
    for layer in adapted:
        layer.enable_adapters(False)  # type: ignore[operator]  # peft's
    try:
        yield
    finally:
        for layer in adapted:
            layer.enable_adapters(True)  # type: ignore[operator]


class Estimate(NamedTuple):
    """Bytes that training and sampling take on a card."""

    weights: int
    optimizer: int
    one: Memory  # activations of a step with one image, gradients included
    lean: Memory  # the same with gradient checkpointing
    step: Memory  # of a step with the stage's batch
    worst: Memory  # of a step in which every term is computed
    checkpointed: Memory  # such a step with gradient checkpointing
    per_image: int  # what one further image adds to such a step
    sampling: int  # weights, and activations of the generate stage

    def total(self, activations: Memory) -> int:
        """Return all that lies on the card at the peak."""
        return self.weights + self.optimizer + activations.peak


def estimate(run: Run, parts: Parts) -> Estimate:
    """Return what the diffuse stage takes. The backbone is in the stage's precision and in training mode afterwards."""
    settings = typed(schema("diffuse"), run.config["stages"]["diffuse"], "stages.diffuse")
    backbone, size = parts["backbone"], run.config["data"]["image_size"]
    on_card = [parts[name] for name in ("backbone", "fuser", "aligner", "autoencoder")]
    weights = sum(p.numel() * p.element_size() for part in on_card for p in part.parameters())
    trained = sum(p.numel() for part in (backbone, parts["fuser"]) for p in part.parameters() if p.requires_grad)
    if settings.precision in DTYPES:
        backbone.to(DTYPES[settings.precision])
    backbone.train()

    def train(count: int, step: int) -> Memory:
        images = batch(parts, count, size, step)
        return measure(lambda: loss(parts, images), backward=True, flash=True)

    count = settings.batch_size
    backbone.checkpointing(False)
    one, worst, more = train(1, 1), train(count, 0), train(count + 1, 0)
    step = one if count == 1 else train(count, 1)
    backbone.checkpointing(True)
    lean, checkpointed = train(1, 1), train(count, 0)
    backbone.checkpointing(False)
    optimizer = trained * (8 if settings.ema is None else 12)
    sampling = weights + _sampling(run, parts)
    return Estimate(weights, optimizer, one, lean, step, worst, checkpointed, more.peak - worst.peak, sampling)


def _sampling(run: Run, parts: Parts) -> int:
    """Return the activations of the generate stage at its batch size."""
    if run.config["stages"].get("generate") is None:
        return 0
    settings = typed(schema("generate"), run.config["stages"]["generate"], "stages.generate")
    backbone, count = parts["backbone"].eval(), settings.batch_size
    noise, asked = _noise(backbone, count), condition(parts, count)
    with torch.no_grad(), merged(backbone):
        paint = measure(lambda: backbone.predict(noise, _timestep(count), asked), flash=True).peak
        return max(paint, measure(lambda: backbone.decode(noise), flash=True).peak)


def _noise(backbone: Any, count: int = 1) -> Tensor:
    return torch.empty(count, *backbone.noise_shape(), device="meta")


def _timestep(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64, device="meta")


def computation_table(run: Run, parts: Parts) -> list[str]:
    """Return the FLOPs of one image as lines."""
    return ["GFLOP per image"] + [f"  {name:<56}{count / 1e9:>14,.2f}" for name, count in computation(run, parts)]


def memory_table(run: Run, parts: Parts, on: Card) -> list[str]:
    """Return the estimate for a card as lines, and whether gradient checkpointing is needed there."""
    settings, found = run.config["stages"]["diffuse"], estimate(run, parts)
    count, room = settings["batch_size"], on.gib * GIB * USABLE
    rows = [
        ("kept activations of one image", found.one.kept),
        ("kept activations of one image, gradient checkpointing", found.lean.kept),
        ("weights on the card", found.weights),
        ("optimizer" + (", moving average" if settings["ema"] is not None else ""), found.optimizer),
        ("activations and gradients, peak", found.step.peak),
        ("the same, in a step with every loss term", found.worst.peak),
        ("all, in such a step", found.total(found.worst)),
        ("all, in such a step, gradient checkpointing", found.total(found.checkpointed)),
        ("sampling, at the generate stage's batch size", found.sampling),
    ]
    title = f"GiB, diffuse, batch {count}, precision {settings['precision']}; {on.name} {on.gib:g} GiB"
    lines = [title, *(f"  {name:<56}{size / GIB:>14.2f}" for name, size in rows)]
    return [*lines, f"  gradient checkpointing: {verdict(found, count, room)}"]


def verdict(found: Estimate, count: int, room: float) -> str:
    """Say whether a batch fits a card's usable bytes, and how."""
    if found.total(found.worst) <= room:
        more = int((room - found.total(found.worst)) // max(found.per_image, 1))
        return f"not needed; the batch could be about {count + more} without it"
    if found.total(found.checkpointed) <= room:
        return f"needed at batch {count}"
    return f"not enough at batch {count}: lower batch_size and raise accumulate, or take a larger card"
