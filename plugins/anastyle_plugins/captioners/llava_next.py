"""LLaVA-NeXT, asked for anatomy and style on a line each; answers that the class or the mask refutes are asked anew.

Sampling as VG-MedGen (temperature 0.8, top-k 50, top-p 0.9, 150 new tokens), with a seed for each record and attempt,
so that a caption hangs neither on the batch it was written in nor on a stop. After the last attempt a record is
rejected, with the reason.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from anastyle import CAPTIONERS, Caption, Captioned, Captioner, ConfigError, Record
from anastyle.streams import seed_for
from anastyle.weights import Checkpoint, find, title
from anastyle_plugins.captioners import _refine
from anastyle_plugins.captioners._prompt import ATTRIBUTES, PICTURES, Lists, Truth, fault, parse, question
from anastyle_plugins.captioners._refine import Refiner
from anastyle_plugins.captioners._words import spoken
from anastyle_plugins.captioners.template import capital, hinted, mask_shape

LLAMA_3 = (  # for folders without a chat template
    "<|start_header_id|>user<|end_header_id|>\n\n<image>\n{question}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
FILES = (
    "config.json",
    "model.safetensors | model.safetensors.index.json",
    "preprocessor_config.json",
    "tokenizer.json",
)
BESIDE = (
    "processor_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "generation_config.json", "chat_template.json", "chat_template.jinja",
)  # fmt: skip


@CAPTIONERS.register
class LlavaNext(Captioner):
    """Needs 18 GB of GPU memory at its default model, in bf16."""

    version = 1

    @dataclass
    class Config(Captioner.Config):
        """Which model, what it is asked, and how often."""

        model: str = "llava-hf/llama3-llava-next-8b-hf"
        """A hub id or a local folder, weights as safetensors."""
        revision: str | None = None
        modality: Literal["auto", "dermoscopy", "endoscopy", "ultrasound", "general"] = "auto"
        picture: str = ""
        """What an image is called in the question; the modality's own word if empty."""
        anatomy: str = ""
        """Attributes asked for, comma-separated; the modality's own if empty."""
        style: str = ""
        max_words: int = 100
        tries: int = 4
        """Answers asked for before a record is rejected."""
        seed: int = 0
        temperature: float = 0.8
        top_k: int = 50
        top_p: float = 0.9
        max_new_tokens: int = 150
        batch_size: int = 4
        dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
        """Of the weights: auto is bf16 on a GPU and fp32 on the CPU."""
        refine: str | None = None
        """A T5 (``google-t5/t5-large`` in the paper), or a folder with one, that shortens captions over 120 tokens."""
        refine_revision: str | None = None

        def __post_init__(self) -> None:
            if min(self.tries, self.max_words, self.max_new_tokens, self.batch_size) < 1:
                raise ConfigError("tries, max_words, max_new_tokens and batch_size: must be at least 1.")
            if self.temperature <= 0 or not 0 < self.top_p <= 1 or self.top_k < 1:
                raise ConfigError("temperature and top_k: above 0; top_p: above 0 and at most 1.")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.batch_size = config.batch_size
        own, *refiner = self.checkpoints(config)
        self.folder, self.source = find(own), title(own)
        self.modality, self.classes = "general", list[str]()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.refiner = Refiner(refiner[0], self.device) if refiner else None
        self._loaded: tuple[Any, Any] | None = None

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the weights of LLaVA-NeXT, and of T5 where it is asked for."""
        own = Checkpoint("model", config.model, FILES, config.revision, BESIDE)
        if config.refine is None:
            return [own]
        return [own, Checkpoint("refine", config.refine, _refine.FILES, config.refine_revision, _refine.BESIDE)]

    def identity(self) -> str:
        """Name the weights."""
        return " ".join([self.source, *([self.refiner.name] if self.refiner else [])])

    def fit(self, records: Callable[[], Iterator[Record]], keys: list[str]) -> dict[str, Any]:
        """Find out the classes and, unless it is said, the modality."""
        hints: dict[str, int] = {}
        classes: dict[str, None] = {}
        for record in records():
            classes[record.label] = None
            for modality in hinted(record) & ATTRIBUTES.keys():
                hints[modality] = hints.get(modality, 0) + 1
        found = max(hints, key=lambda name: hints[name]) if hints else "general"
        return {"modality": found if self.config.modality == "auto" else self.config.modality, "classes": list(classes)}

    def restore(self, fitted: dict[str, Any]) -> None:
        """Take back modality and classes."""
        self.modality, self.classes = fitted["modality"], fitted["classes"]

    @property
    def lists(self) -> Lists:
        """The attributes asked for."""
        anatomy, style = ATTRIBUTES[self.modality]
        return Lists(self.config.anatomy or anatomy, self.config.style or style)

    @property
    def picture(self) -> str:
        """What an image is called."""
        return self.config.picture or PICTURES.get(self.modality, "medical image")

    def caption(self, records: list[Record]) -> list[Captioned]:
        """Ask for each record until an answer is believed, or the attempts are used up."""
        answers: dict[str, Captioned] = {}
        left = {record.key: record for record in records}
        for attempt in range(self.config.tries):
            asked = list(left.values())
            for record, answer in zip(asked, self.ask(asked, attempt) if asked else [], strict=True):
                answers[record.key] = self.judged(record, answer, attempt)
                if answers[record.key].caption is not None:
                    del left[record.key]
        return [answers[record.key] for record in records]

    def judged(self, record: Record, answer: str, attempt: int) -> Captioned:
        """Return the caption that an answer makes, or why it is not believed."""
        config, fields, truth = self.config, parse(answer), self.truth(record)
        if reason := fault(fields, self.lists, truth, config.max_words):
            return Captioned(None, reason=f"{reason} (last of {attempt + 1} answers)")
        of = f" of {spoken(record.label)}" if spoken(record.label) else ""
        text = f"{capital(self.picture)}{of}. {capital(fields['anatomy'])}. {capital(fields['style'])}."
        source = f"{self.source}, attempt {attempt + 1}"
        sources = {"anatomy": source, "style": source, "text": source, "label": "dataset"}
        done = Captioned(Caption(text, fields["anatomy"], fields["style"], record.label), sources)
        return self.refined(done, truth)

    def refined(self, answer: Captioned, truth: Truth) -> Captioned:
        """Return an answer with a shorter text, if it is long and T5 has a better one; the fields stay."""
        caption, refiner = answer.caption, self.refiner
        if refiner is None or caption is None or not refiner.long(caption.text):
            return answer
        text = refiner.refine(caption.text)
        shorter = 0 < len(text.split()) < len(caption.text.split())
        fields = {"anatomy": text, "style": text}
        if not shorter or fault(fields, self.lists, truth, 2 * len(caption.text.split())):
            return answer._replace(notes=("refinement not taken",))
        sources = {**answer.sources, "text": f"{answer.sources['text']}, then {refiner.name}"}
        return Captioned(caption._replace(text=text), sources, notes=("refined",))

    def truth(self, record: Record) -> Truth:
        """Return what an answer must not contradict."""
        shape = mask_shape(record)
        return Truth(record.label, self.classes, record.mask is not None, shape)

    @torch.no_grad()
    def ask(self, records: list[Record], attempt: int) -> list[str]:
        """Return the model's answer for each record."""
        processor, model = self._model()
        prompts = [self._prompt(processor, record) for record in records]
        images = [record.image for record in records]
        inputs = processor(images=images, text=prompts, padding=True, return_tensors="pt").to(model.device, model.dtype)
        seeds = [seed_for(self.config.seed, record.key, str(attempt)) for record in records]
        written = model.generate(
            **inputs,
            do_sample=False,  # the drawing is done by the last of these
            logits_processor=sampling(self.config, seeds),
            max_new_tokens=self.config.max_new_tokens,
            pad_token_id=processor.tokenizer.pad_token_id,
        )
        return processor.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def _prompt(self, processor: Any, record: Record) -> str:
        words = question(self.lists, self.picture, record.label, self.config.max_words)
        if not processor.chat_template:
            return LLAMA_3.format(question=words)
        content = [{"type": "image"}, {"type": "text", "text": words}]
        return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def _model(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = load(self.folder, self.config.dtype, self.device)
        return self._loaded


def load(folder: Any, dtype: str, device: torch.device) -> tuple[Any, Any]:
    """Return processor and model; the images are prepared by Pillow, so torchvision is not needed."""
    from transformers import AutoTokenizer, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    kind = kinds.get(dtype) or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    model: Any = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=kind, use_safetensors=True, **local)
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    tokenizer.padding_side = "left"  # all answers begin at the same place
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    images = LlavaNextImageProcessorPil.from_pretrained(folder, local_files_only=True)
    processor: Any = LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=model.config.vision_config.patch_size,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        num_additional_image_tokens=1,  # the class token of CLIP
        chat_template=chat_template(folder, tokenizer),
    )
    return processor, model.to(device).eval()


def chat_template(folder: Any, tokenizer: Any) -> str | None:
    """Return how a folder wants conversations written, or None."""
    for name in ("chat_template.jinja", "chat_template.json"):
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8")
            return json.loads(text)["chat_template"] if name.endswith("json") else text
    return tokenizer.chat_template


def sampling(config: Any, seeds: list[int]) -> Any:
    """Return the logits processors that draw each row with a generator of its own."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = [
        TemperatureLogitsWarper(config.temperature),
        TopKLogitsWarper(config.top_k),
        TopPLogitsWarper(config.top_p),
    ]
    return LogitsProcessorList([*warpers, GumbelPerRow(seeds)])


class GumbelPerRow:
    """Adds Gumbel noise to the logits: their largest is then a draw from the softmax (the Gumbel-max trick)."""

    def __init__(self, seeds: list[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, V) with noise; each row's hangs on its own seed and the number of calls alone."""
        rows = [torch.rand(scores.shape[1], generator=generator) for generator in self.generators]
        uniform = torch.stack(rows).clamp_(1e-20, 1 - 1e-7)
        return scores.float() - torch.log(-torch.log(uniform)).to(scores.device)
