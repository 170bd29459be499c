"""The published checkpoints' table, on tiny weights in the hub's layout: each row loads, trains, and is exported.

What is exported paints, in diffusers' own pipelines, the images that the run itself paints.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from anastyle import BACKBONES, EMBEDDERS
from anastyle.cli import main
from anastyle.painting.chain import Chain, Guidance, seeded_noise
from anastyle.painting.finished import FinishedRun
from anastyle.painting.prompts import Prompt
from anastyle_plugins.embedders import clip_text
from anastyle_plugins.exports import load_adapter
from anastyle_plugins.exports.adapter import load_peft

ROOT = Path(__file__).parents[1]
SD15, SDXL = "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"
PIXART, BERT = "PixArt-alpha/PixArt-XL-2-512x512", "medicalai/ClinicalBERT"
SMALL = [
    "data={name: phantom, train: 16, test: 8, image_size: 32}",
    "encoder={size: 32, width: 4, depth: 2, style_widths: [4], decoder_widths: [4], style_hidden: 4}",
    "stages.disentangle={epochs: null, steps: 2}",
    "stages.align={epochs: null, steps: 2, batch_size: 4}",
    "stages.diffuse={epochs: null, steps: 2, batch_size: 4, lr: 0.05, warmup: 0, precision: 'no'}",
    "stages.generate={images: 2, steps: 2, grid: 1}",
    "stages.evaluate=null",
    "backbone.base_precision=fp32",
    "backbone.colour_steps=3",
]
WORDS, SEEDS, STEPS, GUIDANCE = ["a round lesion, red", "brown, with a border like a star"], [3, 4], 3, 3.0


def script() -> Any:
    """Return the full-size check, which writes the paper's own checkpoints."""
    spec = importlib.util.spec_from_file_location("full_size_check", ROOT / "launch" / "full_size_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_stable_diffusion(folder: Path, name: str, vae: AutoencoderKL) -> None:
    """Write a whole pipeline of Stable Diffusion 1.5 or XL."""
    ends = {"": 8, "_2": 16} if name == "sdxl" else {"": 12}
    cls: Any = BACKBONES.get(name)
    sizes = UNet2DConditionModel.load_config(cls.tiny(folder.with_name(f"of-{name}"))["path"], subfolder="unet")
    unet = UNet2DConditionModel.from_config({**sizes, "cross_attention_dim": sum(ends.values())})  # type: ignore[dict-item]
    for end, hidden in ends.items():
        clip_text.write(folder, end, hidden)
    words = {f"text_encoder{end}": (CLIPTextModelWithProjection if end else CLIPTextModel).from_pretrained(
        folder / f"text_encoder{end}") for end in ends}  # fmt: skip
    words |= {f"tokenizer{end}": CLIPTokenizer.from_pretrained(folder / f"tokenizer{end}") for end in ends}
    schedule = DPMSolverMultistepScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    common: dict[str, Any] = {"vae": vae, "unet": unet, "scheduler": schedule, **words}
    if name == "sdxl":
        pipe: Any = StableDiffusionXLPipeline(**common)
    else:
        pipe = StableDiffusionPipeline(
            **common, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipe.save_pretrained(folder, safe_serialization=True)


def write_pixart(folder: Path, vae: AutoencoderKL, sizes: dict[str, Any]) -> None:
    """Write a whole pipeline of PixArt-alpha."""
    from transformers import AutoTokenizer, T5EncoderModel

    cls: Any = EMBEDDERS.get("t5")
    words = Path(cls.tiny(folder.with_name("of-t5"))["model"])
    build: Any = PixArtTransformer2DModel
    transformer = build(in_channels=4, out_channels=8, patch_size=2, use_additional_conditions=False,
                        **{**sizes, "caption_channels": 16})  # fmt: skip
    PixArtAlphaPipeline(
        tokenizer=AutoTokenizer.from_pretrained(words / "tokenizer"),
        text_encoder=T5EncoderModel.from_pretrained(words / "text_encoder"),
        vae=vae,
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02),
    ).save_pretrained(folder, safe_serialization=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write every checkpoint of the table, small, under the ids that the hub knows them by."""
    folder, check = tmp_path_factory.mktemp("weights"), script()
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
        block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, sample_size=32,
    )  # fmt: skip
    for name in ("sd-vae-ft-ema", "sdxl-vae"):
        vae.save_pretrained(folder / "stabilityai" / name, safe_serialization=True)
    write_stable_diffusion(folder / SD15, "sd15", vae)
    write_stable_diffusion(folder / SDXL, "sdxl", vae)
    write_pixart(folder / PIXART, vae, check.TINY["transformer"])
    check.write_bert(folder / BERT, check.TINY["bert"], 0)
    return folder


@pytest.fixture(scope="module")
def table(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the table's six rows."""
    output = tmp_path_factory.mktemp("table1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANASTYLE_TRACKING", "off")
        patch.setenv("ANASTYLE_WEIGHTS", str(weights))
        assert main(["run", str(ROOT / "experiments" / "table1.yaml"), *SMALL, f"output={output}"]) == 0
    return output / "table1"


@pytest.fixture
def chain(table: Path, weights: Path, row: str, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Return a row's parts, trained."""
    monkeypatch.setenv("ANASTYLE_WEIGHTS", str(weights))
    return FinishedRun.open(table / row / "seed-42").chain()


@pytest.fixture
def adapter(chain: Chain, table: Path, row: str, tmp_path: Path) -> Path:
    """Export a row's adapter; exporting reads it back and compares."""
    assert main(["export", str(table / row / "seed-42"), str(tmp_path / row), "--format", "adapter"]) == 0
    return tmp_path / row / "adapter"


def painted(chain: Chain, guidance: float) -> torch.Tensor:
    """Return a row's own images (B, 3, H, W) in [0, 1]."""
    prompts = [Prompt(words) for words in WORDS]
    images = chain.paint(prompts, SEEDS, steps=STEPS, guidance=Guidance(guidance)).image
    return (images / 2 + 0.5).clamp(0, 1)


def asked(pipe: Any, chain: Chain, adapter: Path, guidance: float, **options: Any) -> torch.Tensor:
    """Return what a pipeline of diffusers paints of the same words and noise."""
    pipe.scheduler = DPMSolverMultistepScheduler.from_pretrained(adapter)
    pipe.set_progress_bar_config(disable=True)
    noise = seeded_noise(chain.backbone.noise_shape(), SEEDS)
    return pipe(
        WORDS, latents=noise, height=32, width=32, num_inference_steps=STEPS, guidance_scale=guidance, output_type="pt",
        **options,
    ).images  # fmt: skip


@pytest.mark.parametrize("row", ["sd15", "sdxl"])
def test_stable_diffusion_paints_the_same_in_its_own_pipeline(
    row: str, chain: Chain, adapter: Path, weights: Path
) -> None:
    kind, hub = {"sd15": (StableDiffusionPipeline, SD15), "sdxl": (StableDiffusionXLPipeline, SDXL)}[row]
    pipe = kind.from_pretrained(weights / hub)

    before = asked(pipe, chain, adapter, GUIDANCE)
    pipe.load_lora_weights(adapter)
    after = asked(pipe, chain, adapter, GUIDANCE)

    ours = painted(chain, GUIDANCE)
    assert (ours - before).abs().max() > 0.02, "the adapters say nothing: this test could not fail"
    torch.testing.assert_close(after, ours, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("row", "guidance"), [("pixart_alpha", GUIDANCE), ("med_art", 1.0)])
def test_pixart_paints_the_same_in_its_own_pipeline(
    row: str, guidance: float, chain: Chain, adapter: Path, weights: Path
) -> None:
    pipe: Any = PixArtAlphaPipeline.from_pretrained(weights / PIXART)
    options = {"clean_caption": False, "use_resolution_binning": False}

    before = asked(pipe, chain, adapter, guidance, **options)
    load_adapter(pipe, adapter)
    if row == "med_art":  # its T5 is tuned too; its dropped captions are a learned token, which no pipeline has
        load_peft(pipe.text_encoder.encoder, adapter / "text_encoder")
    after = asked(pipe, chain, adapter, guidance, **options)

    ours = painted(chain, guidance)
    assert (ours - before).abs().max() > 0.02, "the adapters say nothing: this test could not fail"
    torch.testing.assert_close(after, ours, rtol=0, atol=2e-4)  # a fortieth of one of 255 grey levels


@pytest.mark.parametrize("row", ["medsegfactory", "vg_medgen"])
def test_what_no_pipeline_knows_paints_here(row: str, chain: Chain) -> None:
    images = painted(chain, GUIDANCE)

    assert images.shape == (2, 3, 32, 32)
    assert (images[0] - images[1]).abs().max() > 0.01
    assert ("adapter" in chain.backbone.exports) == (row == "vg_medgen")
