"""Low-rank adapters (Hu et al. 2022) on a frozen network."""

from typing import Any

import torch
from torch import nn

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def adapt(network: nn.Module, targets: list[str], *, rank: int, alpha: float, precision: str) -> None:
    """Freeze a network in a precision and put adapters, which stay in float32, on the layers whose names end so."""
    from peft import LoraConfig, inject_adapter_in_model  # late: a check does without

    frozen: Any = network.requires_grad_(False)
    nn.Module.to(frozen, PRECISIONS[precision])
    scale: Any = alpha  # peft takes any number and says int
    config = LoraConfig(r=rank, lora_alpha=scale, init_lora_weights="gaussian", target_modules=targets)
    inject_adapter_in_model(config, frozen)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # peft makes them in the base's precision
