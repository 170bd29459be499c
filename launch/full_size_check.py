"""The paper's system at its full size, with random weights: load, two training steps, sample, export, read back.

python launch/full_size_check.py FOLDER [--tiny | --image-size 256]

Writes a checkpoint set in the hub's layout into FOLDER (about 5 GB; ``--tiny``: a few hundred KB), runs the whole way
over a small phantom set, and prints what each step took. Random weights paint noise: what is checked is that every
file is found, every part fits, memory suffices, and that what is exported gives the run's own images.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

TINY = {
    "transformer": {
        "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "cross_attention_dim": 16,
        "sample_size": 8, "caption_channels": 12,
    },
    "vae": {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 16},
    "bert": {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64},
    "image_size": 16, "images": 8,
}  # fmt: skip
FULL = {  # PixArt-XL-2-512x512, sd-vae-ft-ema and medicalai/ClinicalBERT
    "transformer": {
        "num_attention_heads": 16, "attention_head_dim": 72, "num_layers": 28, "cross_attention_dim": 1152,
        "sample_size": 64, "caption_channels": 4096,
    },
    "vae": {
        "block_out_channels": (128, 256, 512, 512), "norm_num_groups": 32, "layers_per_block": 2, "sample_size": 256,
    },
    "bert": {"dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12, "max_position_embeddings": 512},
    "image_size": 512, "images": 8,
}  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz.,:;-"
VOCABULARY = 119_547  # of medicalai/ClinicalBERT


def write_checkpoints(folder: Path, sizes: dict[str, Any], *, tiny: bool) -> None:
    """Write a PixArt pipeline's transformer and scheduler, an autoencoder, and a BERT, as the hub has them."""
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, PixArtTransformer2DModel

    torch.manual_seed(0)
    build: Any = PixArtTransformer2DModel
    transformer = build(in_channels=4, out_channels=8, patch_size=2, use_additional_conditions=False,
                        **sizes["transformer"])  # fmt: skip
    pixart = folder / "PixArt-XL-2-512x512"
    transformer.save_pretrained(pixart / "transformer", safe_serialization=True)
    DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear").save_pretrained(
        pixart / "scheduler"
    )
    parts = {
        "_class_name": "PixArtAlphaPipeline",
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    }
    (pixart / "model_index.json").write_text(json.dumps(parts, indent=1), encoding="utf-8")
    del transformer
    vae: Any = AutoencoderKL
    levels = len(sizes["vae"]["block_out_channels"])
    vae(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=4,
        **sizes["vae"],
    ).save_pretrained(folder / "sd-vae-ft-ema", safe_serialization=True)
    write_bert(folder / "ClinicalBERT", sizes["bert"], VOCABULARY if not tiny else 0)


def write_bert(folder: Path, sizes: dict[str, int], words: int) -> None:
    """Write a DistilBERT with a vocabulary of letters, filled up to ``words``."""
    from transformers import AutoConfig, AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary += [f"[unused{i}]" for i in range(words - len(vocabulary))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    config = AutoConfig.for_model("distilbert", vocab_size=len(vocabulary), **sizes)
    AutoModel.from_config(config).save_pretrained(folder)


def write_experiment(folder: Path, sizes: dict[str, Any], *, tiny: bool) -> Path:
    """Write the experiment file: the paper's parts over these checkpoints, two steps each."""
    batch = {"disentangle": 2, "align": 2, "diffuse": 1}  # sdnet normalises over the batch
    encoder: dict[str, Any] = {"name": "sdnet"}
    if not tiny:
        encoder["size"] = 224
    else:
        encoder |= {"width": 4, "depth": 2, "style_widths": [4], "decoder_widths": [4], "style_hidden": 4}
    terms = {"disentangle": {"reconstruction": 1, "kl": 0.01, "dice": 10, "z_regression": 1},
             "align": {"anatomy": 1, "style": 1, "reconstruction": 4}, "diffuse": {"denoising": 1}}  # fmt: skip
    content = {
        "name": "full_size",
        "output": str(folder / "runs"),
        "data": {
            "name": "phantom",
            "train": sizes["images"],
            "validation": 0,
            "test": 4,
            "image_size": sizes["image_size"],
        },
        "encoder": encoder,
        "embedder": {"name": "bert", "model": str(folder / "ClinicalBERT")},
        "aligner": {"name": "clinicalbert_mlp"},
        "fuser": {"name": "hffm"},
        "autoencoder": {"name": "kl", "path": str(folder / "sd-vae-ft-ema")},
        "backbone": {
            "name": "pixart_lora",
            "path": str(folder / "PixArt-XL-2-512x512"),
            "colour": "off",
            "base_precision": "bf16" if torch.cuda.is_available() else "fp32",
        },
        "stages": {
            **{stage: {"steps": 2, "batch_size": batch[stage], "weights": terms[stage]} for stage in terms},
            "generate": {"images": 1, "steps": 2, "guidance": 4.5, "batch_size": 1, "grid": 1},
        },
    }
    file = folder / "full_size.yaml"
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")  # JSON is YAML
    return file


@contextmanager
def told(what: str) -> Iterator[None]:
    """Print what a step took: seconds, and the most memory so far."""
    began = time.monotonic()
    yield
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    gpu = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU" if torch.cuda.is_available() else ""
    print(f"{what}: {time.monotonic() - began:.1f} s; at most {resident:.1f} GiB{gpu}", flush=True)


def check(folder: Path, *, tiny: bool, image_size: int = 512) -> int:
    """Go the whole way; return the exit code."""
    from anastyle.cli import main

    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("ANASTYLE_TRACKING", "off")
    sizes = TINY if tiny else FULL | {"image_size": image_size}
    folder.mkdir(parents=True, exist_ok=True)
    with told("checkpoints written"):
        write_checkpoints(folder, sizes, tiny=tiny)
    file = write_experiment(folder, sizes, tiny=tiny)
    run, words = (
        folder / "runs" / "full_size" / "default" / "seed-42",
        ["--anatomy", "a round lesion", "--style", "red"],
    )
    for what, verb in {
        "trained": ["run", str(file)],
        "sampled": ["sample", str(run), *words, "--seeds", "0-1", "--grid", "--out", str(folder / "samples")],
        "exported and read back": ["export", str(run), str(folder / "export")],
    }.items():
        with told(what):
            code = main(verb)
        if code:
            return code
    with told("pipeline painted the same image"):
        compare(folder)
    return 0


def compare(folder: Path) -> None:
    """Raise SystemExit unless the exported pipeline paints what ``anastyle sample`` painted."""
    import numpy as np
    from diffusers import DiffusionPipeline
    from PIL import Image

    import anastyle_plugins.exports  # noqa: F401  # makes the pipeline's class known

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe: Any = DiffusionPipeline.from_pretrained(folder / "export" / "pipeline", local_files_only=True).to(device)
    painted = sorted((folder / "samples").glob("*-s*.png"))
    for path in painted:
        generator = torch.Generator().manual_seed(int(path.stem.rpartition("-s")[2]))
        again = pipe(anatomy="a round lesion", style="red", generator=generator).images[0]
        off = np.abs(np.asarray(again).astype(int) - np.asarray(Image.open(path)).astype(int)).max()
        if off > 1:
            sys.exit(f"{path.name}: the pipeline differs by {off} of 255 grey levels")
    print(f"{len(painted)} images, the same from the pipeline")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The paper's system at full size, with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="small networks: seconds instead of many minutes")
    parser.add_argument("--image-size", type=int, default=512, help="256: a quarter of the arithmetic, for a CPU")
    chosen = parser.parse_args()
    sys.exit(check(chosen.folder, tiny=chosen.tiny, image_size=chosen.image_size))
