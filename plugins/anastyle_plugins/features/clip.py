"""CLIP image embeddings (Radford et al. 2021): the features of CMMD (Jayasumana et al. 2024).

The default is the model of CMMD. Any other in transformers' CLIP layout fits; the numbers are then its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anastyle import FEATURES
from anastyle_plugins.features._pretrained import Pretrained, load, quiet


@FEATURES.register
class CLIP(Pretrained):
    """The projected image embedding, (B, projection size), not brought to unit length: CMMD does that itself."""

    @dataclass
    class Config(Pretrained.Config):
        """Which weights."""

        path: str = "openai/clip-vit-large-patch14-336"
        """A hub id or a local folder with config.json and model.safetensors, of the whole model or its vision part."""

    name = "clip"
    colours = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

    def __init__(self, config: Config, *, classes: int = 0) -> None:
        from transformers import CLIPVisionModelWithProjection  # late: a long import

        super().__init__(config)
        self.network = load(CLIPVisionModelWithProjection, self.checkpoints(config)[0])
        self.side = self.network.config.image_size

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Write a two-layer twin with random weights, its text part too; return the options that name it."""
        from transformers import CLIPConfig, CLIPModel

        size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = CLIPConfig(
            text_config={**size, "vocab_size": 32, "max_position_embeddings": 8, "projection_dim": 12},
            vision_config={**size, "image_size": 28, "patch_size": 14, "projection_dim": 12},
            projection_dim=12,
        )
        with torch.random.fork_rng(), quiet():
            torch.manual_seed(0)
            CLIPModel(config).save_pretrained(folder / "clip")
        return {"path": str(folder / "clip"), "batch_size": 2}

    def look(self, image: Tensor) -> Tensor:
        return self.network(pixel_values=image).image_embeds
