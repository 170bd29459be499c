"""T5's encoder, frozen, as PixArt-alpha reads it: 120 tokens, whatever is longer is cut."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anastyle import EMBEDDERS, ConfigError
from anastyle.weights import Checkpoint
from anastyle_plugins.embedders._hub import ENCODER, TOKENIZER
from anastyle_plugins.embedders.bert import Bert, load

HUB = "PixArt-alpha/PixArt-XL-2-512x512"
FILES = (
    f"{ENCODER}/config.json",
    f"{ENCODER}/model.safetensors | {ENCODER}/model.safetensors.index.json",
    f"{TOKENIZER}/spiece.model | {TOKENIZER}/tokenizer.json",
)
BESIDE = tuple(
    f"{TOKENIZER}/{name}" for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
)
XXL = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128,
       "feed_forward_proj": "gated-gelu"}  # fmt: skip


@EMBEDDERS.register
class T5(Bert):
    """Tokens are the last hidden state; pooled is their mean over the words."""

    @dataclass
    class Config(Bert.Config):
        """Which pipeline's text encoder, and how much of a caption it reads."""

        model: str = HUB
        """A hub id, or a folder of a pipeline with ``tokenizer`` and ``text_encoder``."""
        max_tokens: int = 120
        encode: bool = True
        """False: give the encoder's input embeddings, for an aligner that holds the encoder (``t5_lora``)."""

    architectures = {HUB: XXL}

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the encoder's weights and vocabulary."""
        return [Checkpoint("embedder.model", config.model, FILES, config.revision, BESIDE)]

    def architecture(self) -> Any:
        """Return a known encoder without its weights."""
        from transformers import T5Config, T5EncoderModel

        return self.only(T5EncoderModel(T5Config(**self.architectures[self.config.model])))

    def load(self, folder: Path) -> tuple[Any, Any]:
        """Return encoder and tokenizer of a local folder."""
        from transformers import T5EncoderModel

        model, words = load(folder / ENCODER, T5EncoderModel, folder / TOKENIZER)
        return self.only(model), words

    def only(self, model: Any) -> Any:
        """Drop an encoder's blocks, if they are not wanted here."""
        if not self.config.encode:
            model.encoder.block = nn.ModuleList()
        return model

    def states(self, ids: Tensor, shown: Tensor | None) -> Tensor:
        """Return what the encoder makes of words (B, T), or their input embeddings, (B, T, E)."""
        return super().states(ids, shown) if self.config.encode else self.model.get_input_embeddings()(ids)

    def fingerprint(self) -> str:
        """Return the model's name, a hash of its weights, and whether they are used."""
        return super().fingerprint() + ("" if self.config.encode else "-input")

    def export(self, folder: Path) -> dict[str, Any]:
        """Write encoder and tokenizer into a folder and return the options that load them from there."""
        if not self.config.encode:
            raise ConfigError(
                "embedder: a T5 that the aligner tunes has no pipeline format. Use --format adapter or peft."
            )
        self.model.save_pretrained(folder / ENCODER)
        self.tokenizer.save_pretrained(folder / TOKENIZER)
        return {**asdict(self.config), "model": str(folder), "revision": None}

    @classmethod
    def tiny(cls, tmp_path: Path) -> dict[str, Any]:
        """Write a two-layer twin with random weights and a vocabulary of letters; return the options that name it."""
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

        pieces = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz,.-"]
        plain = Tokenizer(models.WordLevel({piece: at for at, piece in enumerate(pieces)}, unk_token="<unk>"))
        plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        plain.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        words = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
        folder = tmp_path / "tiny-t5"
        words.save_pretrained(folder / TOKENIZER)
        config = T5Config(
            vocab_size=len(pieces), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu",
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            T5EncoderModel(config).save_pretrained(folder / ENCODER)
        return {"model": str(folder), "batch_size": 2}
