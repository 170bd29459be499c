"""Any BERT-family language model, frozen: ClinicalBERT as in the paper, or another hub id, or a local folder.

The paper cites Bio_ClinicalBERT (``emilyalsentzer/Bio_ClinicalBERT``), but its parameter count is that of
``medicalai/ClinicalBERT``, a DistilBERT; both fit here.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from anastyle import EMBEDDERS, DataError, Embedded, TextDims
from anastyle.weights import Checkpoint, find
from anastyle_plugins.embedders._hub import HubEmbedder

FILES = (
    "config.json",
    "model.safetensors | model.safetensors.index.json",
    "tokenizer.json | vocab.txt | vocab.json | spiece.model | sentencepiece.bpe.model",
)
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "vocab.txt")
# what is built where no weights are wanted, on the meta device
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "medicalai/ClinicalBERT": {"model_type": "distilbert", "vocab_size": 119547},
    "emilyalsentzer/Bio_ClinicalBERT": {"model_type": "bert", "vocab_size": 28996},
}


@EMBEDDERS.register
class Bert(HubEmbedder):
    """Tokens are the last hidden state; pooled is their mean over the words (as in the paper)."""

    @dataclass
    class Config(HubEmbedder.Config):
        """Which model, and how much of a caption it reads."""

        model: str = "medicalai/ClinicalBERT"
        """A hub id or a local folder with config.json, tokenizer files and weights."""
        revision: str | None = None
        max_tokens: int = 256
        """Longer captions are cut here, or at the model's own limit."""
        batch_size: int = 32

    architectures: ClassVar[dict[str, dict[str, Any]]] = ARCHITECTURES

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.tokenizer: Any = None
        if torch.get_default_device().type == "meta" and config.model in self.architectures:
            self.model = self.architecture()
        else:
            self.model, self.tokenizer = self.load(find(self.checkpoints(config)[0]))
        self.requires_grad_(False).eval()
        hidden = self.model.config.hidden_size
        self.dims = TextDims(token=hidden, pooled=hidden)
        self.limit = min(config.max_tokens, getattr(self.model.config, "max_position_embeddings", config.max_tokens))

    @classmethod
    def tiny(cls, tmp_path: Path) -> dict[str, Any]:
        """Write a two-layer twin with random weights; return the options that name it."""
        from transformers import BertConfig, BertModel

        letters = "abcdefghijklmnopqrstuvwxyz.,:;-"
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
        folder = tmp_path / "tiny-bert"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
        config = BertConfig(
            vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=64,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            BertModel(config).save_pretrained(folder)
        return {"model": str(folder), "batch_size": 2}

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the model's weights and vocabulary."""
        return [Checkpoint("embedder.model", config.model, FILES, config.revision, BESIDE)]

    def architecture(self) -> Any:
        """Return a known model without its weights."""
        from transformers import AutoConfig, AutoModel

        return AutoModel.from_config(AutoConfig.for_model(**self.architectures[self.config.model]))

    def load(self, folder: Path) -> tuple[Any, Any]:
        """Return model and tokenizer of a local folder."""
        return load(folder)

    @torch.no_grad()
    def embed(self, captions: list[str]) -> Embedded:
        """Return tokens (B, T, E), zero beyond a caption's end, their mask, and their mean (B, E).

        T is the longest of these captions. They are read in groups of like length, so that little is padded.
        """
        device = next(self.model.parameters()).device
        ids = self.tokenizer(captions, truncation=True, max_length=self.limit)["input_ids"] if captions else []
        words = [torch.tensor(row, device=device) for row in ids]
        longest = max(map(len, words), default=0)
        tokens = torch.zeros(len(captions), longest, self.dims.token, device=device)
        mask = torch.zeros(len(captions), longest, dtype=torch.bool, device=device)
        order = sorted(range(len(captions)), key=lambda i: len(words[i]))
        for start in range(0, len(order), self.config.batch_size):
            rows = order[start : start + self.config.batch_size]
            padded = pad_sequence([words[i] for i in rows], batch_first=True, padding_value=self.tokenizer.pad_token_id)
            shown = pad_sequence([torch.ones_like(words[i]) for i in rows], batch_first=True)
            hidden = self.states(padded, shown)
            index = torch.tensor(rows, device=device)
            tokens[index, : hidden.shape[1]] = hidden.float() * shown[..., None]
            mask[index, : hidden.shape[1]] = shown.bool()
        return Embedded(tokens, mask, mean_of_words(tokens, mask))

    def states(self, ids: Tensor, shown: Tensor | None) -> Tensor:
        """Return what the model makes of words (B, T), some of them shown, (B, T, E)."""
        return self.model(input_ids=ids, attention_mask=shown).last_hidden_state

    @torch.no_grad()
    def rehearse(self, words: int) -> None:
        """Compute one caption of that many words, whatever they are."""
        ids = torch.zeros(1, words, dtype=torch.int64, device=next(self.model.parameters()).device)
        self.states(ids, None)

    def export(self, folder: Path) -> dict[str, Any]:
        """Write model and tokenizer into a folder and return the options that load them from there."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return {**asdict(self.config), "model": str(folder), "revision": None}


def mean_of_words(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (B, E) of tokens (B, T, E) where the mask (B, T) is True."""
    shown = mask[..., None].to(tokens.dtype)
    return (tokens * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1)


def load(folder: Path, cls: Any = None, words: Path | None = None) -> tuple[Any, Any]:
    """Return model and tokenizer of a local folder; code that lies beside the weights is never run.

    Arguments:
        cls: of the model; as its configuration says, by default.
        words: where the tokenizer lies; beside the weights, by default.

    Raises:
        DataError: the weights do not fit the configuration.
    """
    from transformers import AutoModel, AutoTokenizer  # late: a missing model is reported before this long import

    model, report = (cls or AutoModel).from_pretrained(
        folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=torch.float32,
        output_loading_info=True,
    )  # fmt: skip
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))  # unused here
    if missing:
        raise DataError(
            f"{folder}: the weights lack {len(missing)} tensors that config.json asks for, such as {missing[0]}.\n"
            "  Download the model again, or name one whose files belong together."
        )
    return model, AutoTokenizer.from_pretrained(words or folder, local_files_only=True, trust_remote_code=False)
