"""Writes a backbone in each format, reads it back as a stranger would, and compares."""

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from anastyle import Condition, NumericalError
from anastyle.painting.chain import Chain
from anastyle.painting.prompts import by_factor
from anastyle_plugins.backbones._latent import LatentDiffusion
from anastyle_plugins.exports.adapter import adapters, load_adapter, load_peft, save_adapter, save_peft
from anastyle_plugins.exports.pipeline import AnastylePipeline, TextSide

TOLERANCE = 1e-4  # of the largest number: the same arithmetic in another order
TEXT_ENCODER = "text_encoder"
PROBE = by_factor("a small round lesion with a sharp border", "brown, smooth")
PROBE_SEED, PROBE_STEPS = 0, 2


def export_adapter(backbone: LatentDiffusion, folder: Path, chain: Chain) -> None:
    """Write diffusers' LoRA file, the sampler beside it, and load it into the untrained network."""
    save_adapter(backbone.network, folder, backbone.part)
    backbone.scheduler(1).save_pretrained(folder)
    export_encoder(folder, chain)
    compare_adapters(backbone, load_adapter(backbone.fresh(), folder), "adapter")


def export_peft(backbone: LatentDiffusion, folder: Path, chain: Chain) -> None:
    """Write peft's folder and load it over the untrained network."""
    save_peft(backbone.network, folder, backbone.config.path)
    export_encoder(folder, chain)
    compare_adapters(backbone, load_peft(backbone.fresh(), folder), "peft")


def export_encoder(folder: Path, chain: Chain) -> None:
    """Write the adapters of a text encoder that was tuned too, as peft has them: ``PeftModel`` over its stack."""
    encoder = getattr(chain.reader.aligner, "encoder", None)
    if hasattr(encoder, "peft_config"):
        save_peft(encoder, folder / TEXT_ENCODER, chain.sections["aligner"]["path"])


def export_pipeline(backbone: LatentDiffusion, folder: Path, chain: Chain) -> None:
    """Write a whole pipeline, the LoRA merged, load it and paint the same image with both."""
    backbone.merge()
    autoencoder: Any = backbone.autoencoder
    autoencoder.sync()
    beside = folder.with_name(f".{folder.name}.embedder")
    try:
        whole = AnastylePipeline(
            TextSide.of(chain, beside), backbone.network, autoencoder.model, backbone.scheduler(1),
            chain.image_size, chain.steps, chain.guidance,
        )  # fmt: skip
        whole.save_pretrained(folder, safe_serialization=True)
        del whole
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    again: Any = DiffusionPipeline.from_pretrained(folder, local_files_only=True).to(chain.device)
    again.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(PROBE_SEED)
    found = again(
        anatomy=PROBE.anatomy, style=PROBE.style, generator=generator, num_inference_steps=PROBE_STEPS, output_type="pt"
    ).images
    close(chain.paint([PROBE], [PROBE_SEED], steps=PROBE_STEPS).image, found, "pipeline: the painted image")


def compare_adapters(backbone: LatentDiffusion, again: Any, kind: str) -> None:
    """Raise NumericalError unless every adapter is there as it was, and the predictions are the same."""
    ours, theirs = adapters(backbone.network), adapters(again)
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise NumericalError(f"{kind}: read back with other layers than were written, such as {odd[0]}.")
    for name, adapter in ours.items():
        down, up, scaling = theirs[name]
        if adapter.scaling != scaling:
            raise NumericalError(f"{kind}: {name} was read back with scaling {scaling}, not {adapter.scaling}.")
        close(adapter.down, down, f"{kind}: {name}, down", exactly=True)
        close(adapter.up, up, f"{kind}: {name}, up", exactly=True)
    device = next(backbone.network.parameters()).device
    again = again.to(device).eval()
    close(probe(backbone.network, backbone), probe(again, backbone), f"{kind}: the prediction")


@torch.no_grad()
def probe(network: Any, backbone: LatentDiffusion) -> Tensor:
    """Return a prediction on fixed input."""
    draw = torch.Generator().manual_seed(PROBE_SEED)
    latent = torch.randn(1, *backbone.noise_shape(), generator=draw)
    tokens = torch.randn(1, 2, backbone.width, generator=draw)
    device = next(network.parameters()).device
    pooled = None if backbone.pooled is None else torch.randn(1, backbone.pooled, generator=draw).to(device)
    asked = Condition(tokens.to(device), torch.ones(1, 2, dtype=torch.bool, device=device), pooled)
    return backbone.ask(network, latent.to(device), torch.tensor([500], device=device), asked)


def close(ours: Tensor, theirs: Tensor, what: str, *, exactly: bool = False) -> None:
    """Raise NumericalError unless two tensors are equal, or nearly so."""
    off = (ours.detach().float().cpu() - theirs.detach().float().cpu()).abs().max().item()
    allowed = 0.0 if exactly else TOLERANCE * max(1.0, ours.abs().max().item())
    if not off <= allowed:
        raise NumericalError(f"{what}: read back it differs by {off:.2g}, more than {allowed:.2g}. Nothing was kept.")


EXPORTS = {"adapter": export_adapter, "peft": export_peft, "pipeline": export_pipeline}
