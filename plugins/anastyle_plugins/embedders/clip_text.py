"""CLIP's text encoders as Stable Diffusion reads them: of SD1.5 one, of SDXL two side by side."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anastyle import EMBEDDERS, Embedded, TextDims
from anastyle.weights import Checkpoint, find
from anastyle_plugins.embedders._hub import ENCODER, TOKENIZER, HubEmbedder

# what is built where no weights are wanted, on the meta device: hub id -> options of its encoders (facts part E)
BIG: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280, "hidden_act": "gelu",
}  # fmt: skip
LARGE: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768,
}  # fmt: skip
ARCHITECTURES: dict[str, list[dict[str, Any]]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": [LARGE],
    "stabilityai/stable-diffusion-xl-base-1.0": [LARGE, BIG],
}


@EMBEDDERS.register
class CLIPText(HubEmbedder):
    """Tokens are hidden states of all 77 places, padding included, as the U-Nets were trained on them."""

    @dataclass
    class Config(HubEmbedder.Config):
        """Which pipeline's encoders."""

        model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
        """A hub id, or a folder of a pipeline with ``tokenizer`` and ``text_encoder``."""
        revision: str | None = None
        both: bool = False
        """Read ``text_encoder_2`` too, as SDXL does: the last hidden states but one, side by side; pooled is the
        second's projection. Otherwise tokens are the last hidden states, pooled that of the end of the text."""
        batch_size: int = 32

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.tokenizers: list[Any] = []
        if torch.get_default_device().type == "meta" and config.model in ARCHITECTURES:
            self.models = nn.ModuleList(architectures(config))
        else:
            folder = find(self.checkpoints(config)[0])
            pairs = [load(folder, end) for end in endings(config)]
            self.models, self.tokenizers = nn.ModuleList(model for model, _ in pairs), [words for _, words in pairs]
        self.requires_grad_(False).eval()
        sizes: list[Any] = [model.config for model in self.models]
        pooled = sizes[-1].projection_dim if config.both else sizes[-1].hidden_size
        self.dims = TextDims(token=sum(size.hidden_size for size in sizes), pooled=pooled)

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the encoders' weights and vocabularies."""
        files, beside = [], []
        for end in endings(config):
            model, words = f"{ENCODER}{end}", f"{TOKENIZER}{end}"
            files += [f"{model}/config.json", f"{model}/model.safetensors"]
            files += [f"{words}/tokenizer_config.json", f"{words}/vocab.json | {words}/tokenizer.json"]
            beside.append(f"{TOKENIZER}{end}/merges.txt")
        return [Checkpoint("embedder.model", config.model, tuple(files), config.revision, tuple(beside))]

    @torch.no_grad()
    def embed(self, captions: list[str]) -> Embedded:
        """Return tokens (B, 77, E), a mask that is True throughout, and pooled (B, P)."""
        device = next(self.parameters()).device
        found = [self._read(captions[at : at + self.config.batch_size], device)
                 for at in range(0, len(captions), self.config.batch_size)]  # fmt: skip
        tokens, pooled = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Embedded(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=device), pooled)

    def _read(self, captions: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
        states, pooled = [], torch.empty(0)
        for model, tokenizer in zip(self.models, self.tokenizers, strict=True):
            ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
            said = model(ids, output_hidden_states=self.config.both)
            states.append(said.hidden_states[-2] if self.config.both else said.last_hidden_state)
            pooled = said.text_embeds if hasattr(said, "text_embeds") else said.pooler_output
        return torch.cat(states, dim=-1).float(), pooled.float()

    @torch.no_grad()
    def rehearse(self, words: int) -> None:
        """Compute one caption, which is always of 77 places."""
        for model in self.models:
            model(torch.zeros(1, 77, dtype=torch.int64, device=next(model.parameters()).device))

    def export(self, folder: Path) -> dict[str, Any]:
        """Write encoders and vocabularies into a folder and return the options that load them from there."""
        for end, model, tokenizer in zip(endings(self.config), self.models, self.tokenizers, strict=True):
            saved: Any = model
            saved.save_pretrained(folder / f"{ENCODER}{end}")
            tokenizer.save_pretrained(folder / f"{TOKENIZER}{end}")
        return {**asdict(self.config), "model": str(folder), "revision": None}

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Write a tiny pipeline's text side with random weights; return the options that name it."""
        for end, hidden in (("", 8), ("_2", 16)):
            write(folder / "clip", end, hidden)
        return {"model": str(folder / "clip"), "both": True, "batch_size": 2}


def endings(config: Any) -> list[str]:
    """Return what the names of a pipeline's text encoders end in."""
    return ["", "_2"] if config.both else [""]


def kind(end: str) -> Any:
    """Return the class of a pipeline's first or second text encoder."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection  # late: a long import

    return CLIPTextModelWithProjection if end else CLIPTextModel


def architectures(config: Any) -> list[Any]:
    """Return the encoders of a known pipeline, without weights."""
    from transformers import CLIPTextConfig

    pairs = zip(endings(config), ARCHITECTURES[config.model], strict=False)
    return [kind(end)(CLIPTextConfig(**sizes)) for end, sizes in pairs]


def load(folder: Path, end: str) -> tuple[Any, Any]:
    """Return a pipeline's first or second text encoder and its tokenizer, from a local folder."""
    from transformers import CLIPTokenizer

    model = kind(end).from_pretrained(
        folder / f"{ENCODER}{end}", use_safetensors=True, local_files_only=True, dtype=torch.float32
    )
    return model, CLIPTokenizer.from_pretrained(folder / f"{TOKENIZER}{end}", local_files_only=True)


def write(folder: Path, end: str, hidden: int) -> None:
    """Write a text encoder with random weights, and a vocabulary of letters."""
    from transformers import CLIPTextConfig, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz,.-"
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    place = folder / f"{TOKENIZER}{end}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(vocabulary)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(place, model_max_length=77).save_pretrained(place)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=hidden, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=12, bos_token_id=len(vocabulary) - 2, eos_token_id=len(vocabulary) - 1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(len(end))
        kind(end)(config).save_pretrained(folder / f"{ENCODER}{end}")
