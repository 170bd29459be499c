"""Accounting: what a run's parts count, compute and keep, on the meta device: no weight is loaded or drawn."""

from typing import Any

import torch
from torch import nn

from anastyle.accounting.costs import Card, card, computation_table, memory_table, shapes
from anastyle.config import section
from anastyle.experiment import Experiment, Run
from anastyle.interfaces import fused_dims
from anastyle.registry import ALIGNERS, AUTOENCODERS, BACKBONES, EMBEDDERS, ENCODERS, FUSERS, Registry

PAINTERS = ("embedder", "aligner", "fuser", "backbone", "autoencoder")  # what it takes to paint a caption


def report(experiment: Experiment, on: str = "A30") -> str:
    """Return the accounts of each different run of an experiment, for a card such as ``A30`` or a number of GiB."""
    chosen = card(on)
    runs = {run.variant: run for run in experiment.runs}
    pages = {variant: page(run, chosen) for variant, run in runs.items()}
    return "\n\n".join(f"{experiment.name} / {variant}\n{text}" for variant, text in pages.items())


def page(run: Run, on: Card) -> str:
    """Return one run's accounts: parameters, shapes, FLOPs and memory."""
    built = parts(run)
    lines = [*table(run, built), *inference(built)]
    lines += ["shapes of one image", *(f"  {name:<56}{shape:>14}" for name, shape in shapes(built, size(run)))]
    lines += computation_table(run, built)
    if run.config["stages"].get("diffuse") is not None:
        lines += memory_table(run, built, on)
    return "\n".join(lines)


def table(run: Run, built: dict[str, nn.Module]) -> list[str]:
    """Return one run's parts and what they are made of, a line each."""
    lines = [f"{'part':<44}{'parameters':>14}{'trained':>14}{'frozen':>14}"]
    for kind, module in built.items():
        lines.append(_line(f"{kind}  {run.config[kind]['name']}", count(module), count(module, trained=True)))
        inner = [(name, child) for name, child in module.named_children() if count(child)]
        if len(inner) > 1:
            lines += [_line(f"  {name}", count(child), count(child, trained=True)) for name, child in inner]
        if nulls := named(module, "null"):
            published = count(module) - nulls
            lines.append(_line("  without the learned nulls", published, published))
    adapted, rank = named(built["backbone"], "lora_"), run.config["backbone"].get("lora_rank")
    for name, number in built["backbone"].adapter_sizes().items() if adapted else ():  # type: ignore[operator]
        lines.append(_line(f"  adapters of rank {rank}, targets: {name}", number, number))
    return lines


def inference(built: dict[str, nn.Module]) -> list[str]:
    """Return the line that the paper's total is held against, and what is left out of it."""
    painters = [built[kind] for kind in PAINTERS]
    adapters, nulls = (sum(named(module, word) for module in painters) for word in ("lora_", "null"))
    total = sum(map(count, painters)) - adapters - nulls
    return [
        f"{'inference, LoRA merged':<44}{total:>14,}",
        f"{'  learned nulls, ours, not in it':<44}{nulls:>14,}",
    ]


def size(run: Run) -> int:
    """Return the side of a run's images in pixels."""
    return run.config["data"]["image_size"]


def parts(run: Run) -> dict[str, Any]:
    """Build a run's parts on the meta device: shapes without numbers."""
    built: dict[str, Any] = {}

    def build(registry: Registry, **wiring: Any) -> Any:
        mapping = run.config.get(registry.kind)
        if mapping is not None:
            cls, config = section(registry, mapping, registry.kind)
            built[registry.kind] = cls(config, **wiring).to("meta")  # what came from a file is not there yet
        return built.get(registry.kind)

    with torch.device("meta"):
        encoder = build(ENCODERS, image_size=size(run))
        dims = encoder.dims if encoder else None
        text = build(EMBEDDERS).dims
        aligner = build(ALIGNERS, text=text, dims=dims)
        autoencoder = build(AUTOENCODERS)
        backbone = build(BACKBONES, autoencoder=autoencoder, image_size=size(run))
        build(FUSERS, text=text, dims=fused_dims(encoder, aligner), width=backbone.width)
    return built


def count(module: nn.Module, *, trained: bool = False) -> int:
    """Return the number of parameters, or of those that are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def named(module: nn.Module, word: str) -> int:
    """Return the number of parameters whose name holds a word."""
    return sum(p.numel() for name, p in module.named_parameters() if word in name)


def _line(name: str, total: int, trained: int) -> str:
    return f"{name:<44}{total:>14,}{trained:>14,}{total - trained:>14,}"
