"""T5's encoder, tuned by LoRA while the backbone learns to paint, as in Med-Art; or a small one, trained from scratch.

It reads T5's own input embeddings (embedder ``t5`` with ``encode: false``); a small one reads any embedder's tokens.
Med-Art's code names targets of an older T5: its "wi" matches none of the gated layers of version 1.1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from anastyle import ALIGNERS, Aligner, ConfigError, Embedded, FactorDims, Reading, TextDims
from anastyle.weights import Checkpoint, find
from anastyle_plugins.embedders._hub import ENCODER
from anastyle_plugins.embedders.t5 import FILES, HUB, XXL
from anastyle_plugins.lora import adapt

TARGETS = {"meant": ["q", "k", "v", "o", "wi_0", "wi_1", "wo"], "released": ["q", "k", "v", "o", "wo"]}


@ALIGNERS.register
class T5LoRA(Aligner):
    """Reads no factors: tokens are the encoder's last hidden state."""

    gives = frozenset({"tokens"})

    @dataclass
    class Config(Aligner.Config):
        """Which encoder, or how large."""

        path: str | None = HUB
        """A hub id, or a folder of a pipeline with ``text_encoder``; None: from scratch, as wide as the tokens are."""
        revision: str | None = None
        lora_rank: int = 8
        """0 trains every weight, as from scratch."""
        lora_alpha: float = 8
        lora_targets: Literal["meant", "released"] = "meant"
        """``meant``: every linear layer. ``released``: those that the code's list matches."""
        base_precision: Literal["fp32", "bf16"] = "fp32"
        """Of a frozen encoder; adapters stay in float32."""
        layers: int = 2
        heads: int = 4
        dropout: float = 0.0

    def __init__(self, config: Config, *, text: TextDims, dims: FactorDims | None = None) -> None:
        super().__init__(config)
        self.encoder = self.built(text.token)
        width = self.encoder.config.d_model
        if width != text.token:
            raise ConfigError(
                f"aligner: this T5 reads embeddings of {width} numbers, and the embedder gives {text.token}.\n"
                "  Use embedder t5 of the same weights, with encode: false."
            )
        frozen = config.path is not None and config.lora_rank > 0
        if config.base_precision == "bf16" and not frozen:
            raise ConfigError("aligner.base_precision: bf16 is for a frozen encoder, and here every weight is trained.")
        if frozen:
            targets = TARGETS[config.lora_targets]
            adapt(
                self.encoder, targets, rank=config.lora_rank, alpha=config.lora_alpha, precision=config.base_precision
            )

    def built(self, width: int) -> Any:
        """Return the encoder without its table of words, which the embedder has."""
        from transformers import T5Config, T5EncoderModel  # late: a long import

        config = self.config
        if config.path is None:
            if width % config.heads:
                raise ConfigError(f"aligner.heads={config.heads}: must divide the tokens' width, {width}.")
            sizes = T5Config(
                vocab_size=2, d_model=width, d_kv=width // config.heads, d_ff=4 * width, num_layers=config.layers,
                num_heads=config.heads, feed_forward_proj="gated-gelu", dropout_rate=config.dropout,
            )  # fmt: skip
            model: Any = T5EncoderModel(sizes)
        elif torch.get_default_device().type == "meta" and config.path == HUB:
            model = T5EncoderModel(T5Config(**{**XXL, "dropout_rate": config.dropout}))
        else:
            model = T5EncoderModel.from_pretrained(
                find(self.checkpoints(config)[0]) / ENCODER, use_safetensors=True, local_files_only=True,
                dtype=torch.float32, dropout_rate=config.dropout,
            )  # fmt: skip
        model.encoder.embed_tokens = None
        return model.encoder

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the encoder's weights, if it has any."""
        return [Checkpoint("aligner.path", config.path, FILES[:2], config.revision)] if config.path else []

    def forward(self, embedded: Embedded) -> Reading:
        """Return tokens (B, T, E), their mask, and pooled (B, P) as it came."""
        shown = None if embedded.mask.is_meta else embedded.mask.long()  # transformers looks into it
        dtype = self.encoder.final_layer_norm.weight.dtype  # what it computes in
        said = self.encoder(inputs_embeds=embedded.tokens.to(dtype), attention_mask=shown)
        return Reading(tokens=said.last_hidden_state.float(), mask=embedded.mask, pooled=embedded.pooled)

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Return the options of a tiny twin, for contract tests."""
        return {"path": None, "layers": 1, "heads": 2}
