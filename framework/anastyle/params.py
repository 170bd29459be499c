"""Accounting: what a run's parts count, built on the meta device, so that no weight is loaded or drawn."""

from typing import Any

import torch
from torch import nn

from anastyle.config import section
from anastyle.experiment import Experiment, Run
from anastyle.registry import ALIGNERS, AUTOENCODERS, BACKBONES, EMBEDDERS, ENCODERS, FUSERS, Registry


def report(experiment: Experiment) -> str:
    """Return a table of parameters, total and trained, for each different run of an experiment."""
    runs = {run.variant: run for run in experiment.runs}
    pages = {variant: table(run) for variant, run in runs.items()}
    return "\n\n".join(f"{experiment.name} / {variant}\n{page}" for variant, page in pages.items())


def table(run: Run) -> str:
    """Return one run's parts and what they are made of, a line each."""
    lines = [f"{'part':<44}{'parameters':>14}{'trained':>14}{'frozen':>14}"]
    for kind, module in parts(run).items():
        lines.append(_line(f"{kind}  {run.config[kind]['name']}", count(module), count(module, trained=True)))
        inner = [(name, child) for name, child in module.named_children() if count(child)]
        if len(inner) > 1:
            lines += [_line(f"  {name}", count(child), count(child, trained=True)) for name, child in inner]
        if nulls := sum(p.numel() for name, p in module.named_parameters() if "null" in name):
            published = count(module) - nulls
            lines.append(_line("  without the learned nulls", published, published))
    return "\n".join(lines)


def parts(run: Run) -> dict[str, nn.Module]:
    """Build a run's parts on the meta device: shapes without numbers."""
    built: dict[str, nn.Module] = {}

    def build(registry: Registry, **wiring: Any) -> Any:
        mapping = run.config.get(registry.kind)
        if mapping is not None:
            cls, config = section(registry, mapping, registry.kind)
            built[registry.kind] = cls(config, **wiring)
        return built.get(registry.kind)

    size = run.config["data"]["image_size"]
    with torch.device("meta"):
        encoder = build(ENCODERS, image_size=size)
        dims = encoder.dims if encoder else None
        text = build(EMBEDDERS).dims
        build(ALIGNERS, text=text, dims=dims)
        autoencoder = build(AUTOENCODERS)
        backbone = build(BACKBONES, autoencoder=autoencoder, image_size=size)
        build(FUSERS, text=text, dims=dims, width=backbone.width)
    return built


def count(module: nn.Module, *, trained: bool = False) -> int:
    """Return the number of parameters, or of those that are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def _line(name: str, total: int, trained: int) -> str:
    return f"{name:<44}{total:>14,}{trained:>14,}{total - trained:>14,}"
