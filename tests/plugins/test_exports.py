"""LoRA merged and LoRA exported: the same predictions, alpha kept, and a wrong reading told."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from anastyle import BACKBONES, NumericalError
from anastyle_plugins.exports import load_adapter
from anastyle_plugins.exports.adapter import adapters, load_peft, save_adapter, save_peft
from anastyle_plugins.exports.formats import EXPORTS, compare_adapters, probe

LORA = "pytorch_lora_weights.safetensors"


KINDS = [("pixart_lora", "released"), ("pixart_lora", "paper"), ("sd15", "released"), ("sdxl", "paper")]


@pytest.fixture(params=KINDS, ids="-".join)
def backbone(request: Any, build: Any, autoencoder: Any, shaken: Any) -> Any:
    """Return a backbone whose adapters say something, with an alpha that is not its rank."""
    name, targets = request.param
    made = build(BACKBONES, name, autoencoder=autoencoder, image_size=32)
    options = {**vars(made.config), "lora_alpha": 5.0, "lora_targets": targets}
    return shaken(type(made)(type(made.config)(**options), autoencoder=autoencoder, image_size=32)).eval()


def test_a_merged_lora_predicts_the_same(backbone: Any) -> None:
    before = probe(backbone.network, backbone)
    bare = probe(backbone.fresh().eval(), backbone)

    backbone.merge()

    after = probe(backbone.network, backbone)
    assert (before - bare).abs().max() > 1e-2, "the adapters say nothing: this test could not fail"
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert not adapters(backbone.network)
    assert backbone.network.state_dict().keys() == backbone.fresh().state_dict().keys()
    assert backbone.exports == (("pipeline",) if backbone.part == "transformer" else ())


def test_merging_twice_is_merging_once(backbone: Any) -> None:
    backbone.merge()
    once = probe(backbone.network, backbone)

    backbone.merge()

    torch.testing.assert_close(probe(backbone.network, backbone), once, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["adapter", "peft"])
def test_each_form_is_read_back(backbone: Any, kind: str, tmp_path: Path) -> None:
    chain: Any = SimpleNamespace(reader=SimpleNamespace(aligner=None))
    EXPORTS[kind](backbone, tmp_path / kind, chain)  # raises where anything differs

    again = backbone.fresh()
    again = load_adapter(again, tmp_path / kind) if kind == "adapter" else load_peft(again, tmp_path / kind)
    torch.testing.assert_close(probe(again.eval(), backbone), probe(backbone.network, backbone))


def test_a_stock_pipeline_loads_the_adapter(backbone: Any, tmp_path: Path) -> None:
    save_adapter(backbone.network, tmp_path, backbone.part)
    pipe = stock(backbone)

    if backbone.part == "unet":
        pipe.load_lora_weights(tmp_path)  # diffusers' own
    else:
        assert not hasattr(pipe, "load_lora_weights"), "diffusers can do it by now: the helper may go"
        load_adapter(pipe, tmp_path)

    network, expected = getattr(pipe, backbone.part), probe(backbone.network, backbone)
    torch.testing.assert_close(probe(network.eval(), backbone), expected)
    assert type(network).__name__ == type(backbone.network).__name__
    network.disable_lora()
    assert (probe(network, backbone) - expected).abs().max() > 1e-2


def stock(backbone: Any) -> Any:
    """Return diffusers' own pipeline over the network as it was before training."""
    common: dict[str, Any] = {"vae": AutoencoderKL(), "scheduler": DPMSolverMultistepScheduler(), "tokenizer": None,
                              "text_encoder": None, backbone.part: backbone.fresh()}  # fmt: skip
    kinds: dict[str, Any] = {
        "PixArtLoRA": lambda: PixArtAlphaPipeline(**common),
        "SD15": lambda: StableDiffusionPipeline(
            **common, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        ),
        "SDXL": lambda: StableDiffusionXLPipeline(**common, text_encoder_2=None, tokenizer_2=None),
    }
    return kinds[type(backbone).__name__]()


def test_the_adapter_file_says_rank_and_alpha(backbone: Any, tmp_path: Path) -> None:
    save_adapter(backbone.network, tmp_path, backbone.part)

    with safe_open(tmp_path / LORA, framework="pt") as file:
        about, names = json.loads(file.metadata()["lora_adapter_metadata"]), list(file.keys())
    assert about[f"{backbone.part}.r"] == 2
    assert about[f"{backbone.part}.lora_alpha"] == 5.0
    assert all(name.startswith(f"{backbone.part}.") for name in names)


def test_a_lost_alpha_is_told(backbone: Any, tmp_path: Path) -> None:
    save_adapter(backbone.network, tmp_path, backbone.part)
    save_file(load_file(tmp_path / LORA), tmp_path / LORA)  # without its metadata

    with pytest.raises(NumericalError, match=r"adapter: .* was read back with scaling 1\.0, not 2\.5"):
        compare_adapters(backbone, load_adapter(backbone.fresh(), tmp_path), "adapter")


def test_another_weight_is_told(backbone: Any, tmp_path: Path) -> None:
    save_peft(backbone.network, tmp_path, "base")
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "lora_B" in name)
    save_file({**tensors, name: tensors[name] + 1e-3}, file)

    with pytest.raises(NumericalError, match=r"read back it differs by 0\.001"):
        compare_adapters(backbone, load_peft(backbone.fresh(), tmp_path), "peft")


def test_saving_leaves_the_adapters_config_as_it_was(backbone: Any, tmp_path: Path) -> None:
    before = backbone.network.peft_config["default"].to_dict()

    save_peft(backbone.network, tmp_path, "base")

    assert backbone.network.peft_config["default"].to_dict() == before


def test_without_adapters_there_is_the_pipeline_alone(build: Any, autoencoder: Any) -> None:
    scratch = build(BACKBONES, "compact_dit", autoencoder=autoencoder, image_size=32)

    assert scratch.exports == ("pipeline",)
    autoencoder.model = None
    assert build(BACKBONES, "compact_dit", autoencoder=autoencoder, image_size=32).exports == ()
