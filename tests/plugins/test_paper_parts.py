"""The paper's sizes, counted on the meta device: no weight is drawn, none is loaded."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from anastyle import BACKBONES, FactorDims, TextDims
from anastyle_plugins.aligners.clinicalbert_mlp import ClinicalBertMLP
from anastyle_plugins.aligners.t5_lora import T5LoRA
from anastyle_plugins.autoencoders.kl import KL
from anastyle_plugins.backbones._latent import LORA_TARGETS
from anastyle_plugins.backbones.pixart_lora import ARCHITECTURES
from anastyle_plugins.embedders.bert import Bert
from anastyle_plugins.embedders.clip_text import CLIPText
from anastyle_plugins.embedders.t5 import T5
from anastyle_plugins.encoders.sdnet import SDNet
from anastyle_plugins.fusers.concat import Concat
from anastyle_plugins.fusers.hffm import HFFM

DIMS = FactorDims((1, 8), (1, 8))
CLINICAL = TextDims(768, 768)
PIXART_WIDTH = 4096
NULLS = 2 * PIXART_WIDTH  # ours


@pytest.fixture(autouse=True)
def meta():
    """Build everything without memory."""
    with torch.device("meta"):
        yield


def count(module, *, trained=False):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def pixart():
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(**ARCHITECTURES["PixArt-alpha/PixArt-XL-2-512x512"])


def autoencoder():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )


def aligner():
    return ClinicalBertMLP(ClinicalBertMLP.Config(), text=CLINICAL, dims=DIMS)


def hffm():
    return HFFM(HFFM.Config(), dims=DIMS, width=PIXART_WIDTH)


def test_the_visual_disentangler():
    encoder = SDNet(SDNet.Config(), image_size=224)

    assert count(encoder.anatomy) == 35_058_952
    assert count(encoder.style) == 902_512
    assert count(encoder.segmentor) == 41_986
    assert count(encoder.decoder) == 102_467
    assert count(encoder) == 36_105_917
    assert encoder.dims == DIMS


def test_the_text_disentangler():
    part = aligner()

    assert count(part.anatomy) == count(part.style) == 397_832
    assert count(part.decoder) == 402_688
    assert count(part) == 1_198_352


def test_the_fusion():
    assert count(hffm()) == 2_118_176 + NULLS


def test_the_fusion_and_its_naive_neighbour_are_of_one_order():
    naive = Concat(Concat.Config(), dims=DIMS, width=PIXART_WIDTH)

    assert 0.9 < count(naive) / count(hffm()) < 1.1


def test_the_transformer():
    assert count(pixart()) == 610_856_096


def test_the_adapters():
    attention = LoraConfig(r=8, init_lora_weights="gaussian", target_modules=LORA_TARGETS["paper"])
    everything = LoraConfig(r=8, init_lora_weights="gaussian", target_modules=LORA_TARGETS["released"])

    assert count(inject_adapter_in_model(attention, pixart().requires_grad_(False)), trained=True) == 4_128_768
    assert count(inject_adapter_in_model(everything, pixart().requires_grad_(False)), trained=True) == 6_882_688


def test_the_autoencoder():
    vae = autoencoder()

    assert count(vae) == 83_653_863


@pytest.mark.parametrize(
    ("model", "expected"),
    [("medicalai/ClinicalBERT", 134_734_080), ("emilyalsentzer/Bio_ClinicalBERT", 108_310_272)],
)
def test_the_language_models(model, expected):
    embedder = Bert(Bert.Config(model=model))

    assert count(embedder) == expected
    assert embedder.dims == CLINICAL


@pytest.mark.parametrize(
    ("options", "expected", "dims"),
    [
        ({}, 123_060_480, (768, 768)),
        ({"model": "stabilityai/stable-diffusion-xl-base-1.0", "both": True}, 817_720_320, (2048, 1280)),
    ],
)
def test_the_rivals_text_encoders(options, expected, dims):
    embedder = CLIPText(CLIPText.Config(**options))

    assert count(embedder) == expected
    assert embedder.dims == TextDims(*dims)


def test_pixart_alphas_text_encoder():
    assert count(T5(T5.Config())) == 4_762_310_656


@pytest.mark.parametrize(("targets", "expected"), [("released", 9_043_968), ("meant", 14_548_992)])
def test_med_arts_adapters_on_t5(targets, expected):
    tuned = T5LoRA(T5LoRA.Config(lora_targets=targets), text=TextDims(4096, 4096))

    assert count(tuned, trained=True) == expected


@pytest.mark.parametrize(("name", "expected"), [("sd15", 859_520_964), ("sdxl", 2_567_463_684)])
def test_the_rivals_networks(name, expected):
    cls = BACKBONES.get(name)
    latents = KL(KL.Config(path="stabilityai/sd-vae-ft-ema"))

    backbone = cls(cls.Config(), autoencoder=latents, image_size=512)

    adapters = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert count(backbone) - adapters == expected
    assert adapters == backbone.adapter_sizes()["paper"]


def test_all_that_paints_an_image_is_the_papers_833_million():
    parts = [pixart(), autoencoder(), Bert(Bert.Config()), aligner(), hffm()]

    assert sum(map(count, parts)) - NULLS == 832_560_567
