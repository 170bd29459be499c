"""T5 as PixArt-alpha reads it, and as Med-Art tunes it: the same words, and adapters where they were meant to be."""

import pytest
import torch

from anastyle import ALIGNERS, ConfigError
from anastyle_plugins.aligners.t5_lora import T5LoRA
from anastyle_plugins.embedders.t5 import T5

CAPTIONS = ["a round lesion", "red spot, large"]


@pytest.fixture
def folder(tmp_path) -> str:
    return T5.tiny(tmp_path)["model"]


def tuned(folder: str, **options) -> tuple[T5LoRA, T5]:
    embedder = T5(T5.Config(model=folder, encode=False))
    torch.manual_seed(0)
    return T5LoRA(T5LoRA.Config(path=folder, lora_rank=2, **options), text=embedder.dims), embedder


def test_before_it_is_tuned_it_says_what_t5_says(folder):
    aligner, words = tuned(folder)
    expected = T5(T5.Config(model=folder)).embed(CAPTIONS)

    found = aligner.eval()(words.embed(CAPTIONS))

    assert found.tokens is not None
    torch.testing.assert_close(found.tokens[expected.mask], expected.tokens[expected.mask])
    assert torch.equal(found.mask, expected.mask)
    assert words.fingerprint() != T5(T5.Config(model=folder)).fingerprint()


@pytest.mark.parametrize(("targets", "layers"), [("meant", 7), ("released", 5)])
def test_adapters_lie_on_the_gated_layers_too(folder, targets, layers):
    aligner, _ = tuned(folder, lora_targets=targets)

    trained = {name for name, parameter in aligner.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 2 * layers  # two blocks, two matrices a layer
    assert all("lora_" in name for name in trained)
    assert any("wi_0" in name for name in trained) == (targets == "meant")


def test_a_small_one_from_scratch_reads_any_tokens_and_learns_whole(folder):
    embedder = T5(T5.Config(model=folder))
    aligner = T5LoRA(T5LoRA.Config(path=None, layers=1, heads=2), text=embedder.dims)

    aligner(embedder.embed(CAPTIONS)).tokens.square().mean().backward()

    assert all(parameter.grad is not None for parameter in aligner.parameters() if parameter.requires_grad)
    assert all(parameter.requires_grad for parameter in aligner.parameters())


def test_a_frozen_encoder_may_be_in_half_precision_and_its_adapters_are_not(folder):
    whole, words = tuned(folder)
    half, _ = tuned(folder, base_precision="bf16")

    expected, found = whole.eval()(words.embed(CAPTIONS)), half.eval()(words.embed(CAPTIONS))

    assert found.tokens.dtype == torch.float32
    torch.testing.assert_close(found.tokens[found.mask], expected.tokens[found.mask], rtol=0.1, atol=0.1)
    assert {parameter.dtype for parameter in half.parameters() if parameter.requires_grad} == {torch.float32}
    with pytest.raises(ConfigError, match="bf16 is for a frozen encoder"):
        T5LoRA(T5LoRA.Config(path=None, base_precision="bf16"), text=words.dims)


def test_widths_that_do_not_fit_are_refused(folder):
    other = ALIGNERS.get("t5_lora")
    with pytest.raises(ConfigError, match="reads embeddings of 16 numbers, and the embedder gives 12"):
        other(other.Config(path=folder), text=T5(T5.Config(model=folder)).dims._replace(token=12))
    with pytest.raises(ConfigError, match=r"aligner\.heads=5: must divide the tokens' width, 16"):
        other(other.Config(path=None, heads=5), text=T5(T5.Config(model=folder)).dims)
