"""LoRA in the forms that diffusers and peft load, and the loader that stock diffusers lacks for PixArt.

Diffusers 0.42 has no LoRA loader for PixArt: neither its pipelines nor its transformer carry the mixin.
``load_adapter`` adds the transformer's.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import PeftAdapterMixin
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE, LoraBaseMixin
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from anastyle.checkpoint import save_tensors
from anastyle.errors import DataError

PARTS = ("transformer", "unet")  # what pipelines call their networks
PEFT_PREFIX = "base_model.model."
PEFT_WEIGHTS = "adapter_model.safetensors"


class Adapter(NamedTuple):
    """The adapter of one layer: its output is ``scaling * up @ down @ x``."""

    down: Tensor
    up: Tensor
    scaling: float


def load_adapter(pipeline: Any, folder: str | Path, name: str = "anastyle") -> Any:
    """Load an exported ``adapter`` folder into a stock pipeline, or into its network alone; return what was given.

    Afterwards the network has diffusers' ``set_adapters``, ``fuse_lora``, ``delete_adapters`` and so on. Pipelines of
    Stable Diffusion have a ``load_lora_weights`` of their own that does the same.
    """
    network = next((found for part in PARTS if (found := getattr(pipeline, part, None))), pipeline)
    if not isinstance(network, PeftAdapterMixin):
        network.__class__ = adaptable(type(network))
    part = "unet" if isinstance(network, UNet2DConditionModel) else "transformer"
    network.load_lora_adapter(
        str(folder), prefix=part, weight_name=LORA_WEIGHT_NAME_SAFE, adapter_name=name, use_safetensors=True,
        local_files_only=True,
    )  # fmt: skip
    return pipeline


@lru_cache
def adaptable(cls: type) -> type:
    """Return a model's class with diffusers' adapter mixin, under the same name: what it saves is the same."""
    return type(cls.__name__, (cls, PeftAdapterMixin), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def save_adapter(network: Any, folder: Path, part: str) -> None:
    """Write ``pytorch_lora_weights.safetensors``: keys ``PART.*``, rank, alpha and targets as metadata."""
    layers: dict[str, Any] = {part: plain_state(network)}
    LoraBaseMixin._save_lora_weights(
        save_directory=folder,
        lora_layers=layers,
        lora_metadata={part: network.peft_config["default"].to_dict()},
    )


def save_peft(transformer: Any, folder: Path, base: str) -> None:
    """Write the folder that ``PeftModel.from_pretrained(transformer, folder)`` loads; ``base`` names its origin."""
    folder.mkdir(parents=True, exist_ok=True)
    config = transformer.peft_config["default"]
    before = config.base_model_name_or_path, config.inference_mode
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(folder)
    config.base_model_name_or_path, config.inference_mode = before
    tensors = {f"{PEFT_PREFIX}{key}": value for key, value in plain_state(transformer).items()}
    save_tensors(folder / PEFT_WEIGHTS, tensors, {"format": "pt"})


def plain_state(transformer: Any) -> dict[str, Tensor]:
    """Return the adapters' tensors under peft's names, without that of the adapter."""
    state = get_peft_model_state_dict(transformer, adapter_name="default")
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def load_peft(transformer: Any, folder: Path) -> Any:
    """Return a transformer under the adapters of a ``peft`` folder.

    Raises:
        DataError: its weights are not safetensors; peft would take a pickle instead.
    """
    if not (folder / PEFT_WEIGHTS).is_file():
        raise DataError(f"{folder}: has no {PEFT_WEIGHTS}; adapters are read as safetensors only.")
    return PeftModel.from_pretrained(transformer, folder).base_model.model


def adapters(model: nn.Module) -> dict[str, Adapter]:
    """Return the active adapter of every layer that has one."""
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            of: Any = layer
            active = of.active_adapters[0]
            found[name] = Adapter(of.lora_A[active].weight, of.lora_B[active].weight, of.scaling[active])
    return found


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add every adapter to the weight it adapts, and take it off: the model is then as if it never had any."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        base = layer.get_base_layer()
        base.requires_grad_(False)
        setattr(model.get_submodule(parent), child, base)
    if hasattr(model, "peft_config"):
        del model.peft_config
