"""LLaVA-NeXT as a captioner: prompts, answers that are believed or not, and a tiny model in the hub's layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from anastyle import Caption, ConfigError, MissingError, Record
from anastyle.weights import Checkpoint
from anastyle_plugins.captioners import _refine
from anastyle_plugins.captioners._prompt import ATTRIBUTES, Lists, Truth, fault, parse, question
from anastyle_plugins.captioners._shape import Shape
from anastyle_plugins.captioners.llava_next import GumbelPerRow, LlavaNext

LISTS = Lists(*ATTRIBUTES["ultrasound"])
GOOD = "Anatomy: a small oval mass with a smooth margin in the upper left.\nStyle: hypoechoic and fairly even."


def shape(**changes: Any) -> Shape:
    values: dict[str, Any] = {
        "area": 0.1, "centres": [(0.2, 0.2)], "ratio": 0.7, "angle": 0.0, "solidity": 0.95, "roughness": 0.02,
        "mirror": (0.9, 0.9), "extent": (0.3, 0.3), "cut": [],
    }  # fmt: skip
    return Shape(**{**values, **changes})


def truth(form: Shape | None = None, *, masked: bool = True, label: str = "benign") -> Truth:
    return Truth(label, ["benign", "malignant", "normal"], masked, form)


def test_a_question_names_picture_class_and_both_lists():
    asked = question(LISTS, "ultrasound image", "benign_mass", 80)

    assert "ultrasound image of benign mass" in asked
    assert LISTS.anatomy in asked
    assert LISTS.style in asked
    assert "80 words" in asked


@pytest.mark.parametrize(
    "answer",
    [
        "Anatomy: round.\nStyle: dark.",
        "Sure! Here it is:\n\n**Anatomy:** round.\n**Style:** dark.\n",
        "  - anatomy : round\n  - STYLE: dark",
    ],
)
def test_two_labelled_lines_are_read_however_they_are_dressed(answer):
    assert parse(answer) == {"anatomy": "round", "style": "dark"}


@pytest.mark.parametrize(
    ("answer", "record", "reason"),
    [
        (GOOD, truth(shape()), ""),
        ("A dark mass.", truth(shape()), "no line 'Anatomy:'"),
        ("Anatomy: a round mass.\nStyle:", truth(shape()), "no line 'Style:'"),
        (f"Anatomy: {LISTS.anatomy}.\nStyle: dark.", truth(shape()), "anatomy repeats"),
        ("Anatomy: a round mass.\nStyle: the echogenicity, echotexture and contrast.", truth(shape()), "style repeats"),
        (f"Anatomy: a mass {'and more ' * 60}.\nStyle: dark.", truth(shape()), "over 100 words"),
        ("Anatomy: a malignant mass.\nStyle: dark.", truth(shape()), "another class (malignant)"),
        ("Anatomy: there is no visible mass.\nStyle: dark.", truth(shape()), "denies a lesion"),
        ("Anatomy: a round mass.\nStyle: dark.", truth(None), "the mask is empty"),
        ("Anatomy: no mass is seen.\nStyle: dark.", truth(None), ""),
        ("Anatomy: a large round mass.\nStyle: dark.", truth(shape(area=0.015)), "large"),
        ("Anatomy: a small round mass.\nStyle: dark.", truth(shape(area=0.6)), "small"),
        ("Anatomy: two round masses.\nStyle: dark.", truth(shape()), "counts several"),
        ("Anatomy: a mass in the lower right.\nStyle: dark.", truth(shape()), "other side"),
        ("Anatomy: a large mass in the lower right.\nStyle: dark.", truth(None, masked=False), ""),
    ],
)
def test_answers_that_class_or_mask_refute_are_not_believed(answer, record, reason):
    found = fault(parse(answer), LISTS, record, 100)

    assert (reason in found) if reason else found == ""


def test_draws_follow_the_softmax_and_hang_on_their_own_seed_alone():
    scores = torch.tensor([0.0, 1.0, 2.0])
    one, two = GumbelPerRow([7, 8]), GumbelPerRow([8])
    several = [one(None, scores.expand(2, 3)).argmax(dim=1) for _ in range(400)]
    alone = [two(None, scores[None]).argmax(dim=1)[0] for _ in range(400)]

    assert [row[1].item() for row in several] == [row.item() for row in alone]
    share = torch.bincount(torch.stack(alone), minlength=3) / 400
    torch.testing.assert_close(share, scores.softmax(dim=0), atol=0.08, rtol=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write a LLaVA-NeXT of a few thousand random weights as the hub lays it out."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        PreTrainedTokenizerFast,
    )  # fmt: skip
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    folder = tmp_path_factory.mktemp("tiny-llava")
    words = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER", ":", "ASSISTANT", "Anatomy", "Style", "round", "dark"]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    fast.save_pretrained(folder)
    template = (
        "USER : {% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}<image> "
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %} ASSISTANT :"
    )
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    pins = [[28, 28], [14, 28]]
    LlavaNextImageProcessorPil(
        size={"shortest_edge": 14}, crop_size={"height": 14, "width": 14}, image_grid_pinpoints=pins
    ).save_pretrained(folder)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=14, patch_size=7,
        projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=vision, text_config=text, image_token_index=4, image_grid_pinpoints=pins,
        vision_feature_select_strategy="default", vision_feature_layer=-1, image_seq_length=4,
    )  # fmt: skip
    torch.manual_seed(0)
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    return folder


def record(number: int, side: int = 20) -> Record:
    image = Image.new("RGB", (32, 32), (200, 30 * number % 255, 40))
    mask = Image.new("L", (32, 32))
    ImageDraw.Draw(mask).ellipse((4, 4, 4 + side, 4 + side), fill=255)
    return Record(f"r{number}", image, mask, Caption("an ultrasound image"), "benign", "", "train")


def captioner(folder: Path, **options: Any) -> LlavaNext:
    made = LlavaNext(LlavaNext.Config(model=str(folder), max_new_tokens=6, **options))
    made.restore(json.loads(json.dumps(made.fit(lambda: iter([record(1), record(2)]), ["r1", "r2"]))))
    return made


def test_modality_and_classes_are_found_in_the_set(folder):
    made = captioner(folder)

    assert made.lists == LISTS
    assert made.classes == ["benign"]


def test_a_tiny_model_answers_and_its_answers_hang_on_no_neighbour(folder):
    made = captioner(folder, seed=3)
    together = made.ask([record(n) for n in (1, 2, 3)], 0)
    alone = [captioner(folder, seed=3).ask([record(n)], 0)[0] for n in (1, 2, 3)]

    assert together == alone
    assert len(set(together)) > 1
    assert any(together)
    assert captioner(folder, seed=4).ask([record(1)], 0) != alone[:1]


def test_babble_is_rejected_with_the_reason_after_the_last_try(folder):
    (answer,) = captioner(folder, tries=2).caption([record(1)])

    assert answer.caption is None
    assert "answer" in answer.reason
    assert "last of 2 answers" in answer.reason


def test_only_records_that_were_not_believed_are_asked_again(folder, monkeypatch):
    made = captioner(folder)
    asked = []

    def ask(records, attempt):
        asked.append([record.key for record in records])
        return [GOOD if record.key == "r1" or attempt else "Anatomy: no mass.\nStyle: dark." for record in records]

    monkeypatch.setattr(made, "ask", ask)
    first, second = made.caption([record(1), record(2)])

    assert asked == [["r1", "r2"], ["r2"]]
    assert first.caption is not None
    assert first.caption.anatomy.startswith("a small oval mass")
    assert first.caption.text.startswith("Ultrasound image of benign. A small oval mass")
    assert first.sources["anatomy"].startswith(f"{folder.name}@")
    assert second.sources["style"].endswith("attempt 2")


def test_other_weights_are_another_identity(folder, tmp_path):
    (tmp_path / "twin").mkdir()
    for file in folder.iterdir():
        content = file.read_bytes()
        (tmp_path / "twin" / file.name).write_bytes(
            content[:-1] + bytes([content[-1] ^ 1]) if file.suffix == ".safetensors" else content
        )

    assert captioner(folder).identity() != captioner(tmp_path / "twin").identity()


def test_a_model_that_is_not_here_is_told_with_its_files_and_the_command(tmp_path):
    with pytest.raises(
        MissingError, match=r"llava-hf/llama3-llava-next-8b-hf is not here: config.json(?s:.*)anastyle fetch"
    ):
        LlavaNext(LlavaNext.Config())
    (tmp_path / "pickled").mkdir()
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "pytorch_model.bin"):
        (tmp_path / "pickled" / name).write_text("{}")
    with pytest.raises(MissingError, match="safetensors"):
        LlavaNext(LlavaNext.Config(model=str(tmp_path / "pickled")))


def test_options_that_cannot_be_are_refused():
    for wrong in ({"tries": 0}, {"temperature": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ConfigError):
            LlavaNext.Config(**wrong)


@pytest.fixture
def t5(tmp_path) -> Path:
    """Write a tiny T5 as the hub lays it out."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "mass": 4, "dark": 5, "simplify": 6}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(tmp_path / "t5")
    config = T5Config(
        vocab_size=7, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2, decoder_start_token_id=0, pad_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    model.generation_config.suppress_tokens = [0, 2]  # random weights would say nothing else
    model.save_pretrained(tmp_path / "t5")
    return tmp_path / "t5"


def test_t5_really_writes(t5, monkeypatch):
    monkeypatch.setattr(_refine, "SHORTEST", 4)
    monkeypatch.setattr(_refine, "LONGEST", 8)
    refiner = _refine.Refiner(Checkpoint("refine", str(t5), _refine.FILES), torch.device("cpu"))

    assert refiner.long("a mass " * 61)
    assert not refiner.long("a mass " * 59)
    assert 1 <= len(refiner.refine("a dark mass " * 50).split()) <= 8


def test_a_refined_text_is_taken_on_its_merits(folder, t5, monkeypatch):
    made = captioner(folder, refine=str(t5), max_words=400)
    long = f"Anatomy: a small oval mass {'that is smooth and oval ' * 30}.\nStyle: dark."
    assert made.refiner is not None
    assert made.refiner.name.split("@")[0] in made.identity()

    monkeypatch.setattr(made.refiner, "refine", lambda text: "A small oval mass, dark.")
    taken = made.judged(record(1), long, 0)
    monkeypatch.setattr(made.refiner, "refine", lambda text: "There is no mass, dark.")
    untrue = made.judged(record(1), long, 0)
    short = made.judged(record(1), GOOD, 0)

    assert taken.caption is not None
    assert taken.caption.text == "A small oval mass, dark."
    assert taken.caption.anatomy.startswith("a small oval mass that is")
    assert taken.sources["text"].endswith(made.refiner.name)
    assert untrue.notes == ("refinement not taken",)
    assert untrue.caption is not None
    assert "smooth and oval" in untrue.caption.text
    assert short.notes == ()
