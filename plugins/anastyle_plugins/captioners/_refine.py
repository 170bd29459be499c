"""Long captions made shorter by T5 ("simplify: ..."), as VG-MedGen means to.

Its released code takes only captions that open with a newline, which no T5 answer does: there the step is never
taken. Here an answer counts if it is shorter than the caption and says nothing that the record refutes.
"""

from typing import Any

import torch

from anastyle.weights import Checkpoint, find, title

LONG, SHORTEST, LONGEST, READ, BEAMS = 120, 90, 120, 512, 4  # T5 tokens, and beams, as in VG-MedGen
PREFIX = "simplify: "
FILES = ("config.json", "model.safetensors | model.safetensors.index.json", "tokenizer.json")
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


class Refiner:
    """A frozen T5."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        folder = find(checkpoint)
        from transformers import AutoTokenizer, T5ForConditionalGeneration

        self.name = title(checkpoint)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        found: Any = T5ForConditionalGeneration.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self.model = found.to(device).eval()

    def long(self, text: str) -> bool:
        """Say whether a caption is long enough to be refined."""
        return len(self.tokenizer(text)["input_ids"]) > LONG

    @torch.no_grad()
    def refine(self, text: str) -> str:
        """Return a shorter caption."""
        read = self.tokenizer(PREFIX + text, truncation=True, max_length=READ, return_tensors="pt")
        read = read.to(self.model.device)
        written = self.model.generate(
            **read, num_beams=BEAMS, min_length=SHORTEST, max_length=LONGEST, early_stopping=True
        )
        return " ".join(self.tokenizer.decode(written[0], skip_special_tokens=True).split())
