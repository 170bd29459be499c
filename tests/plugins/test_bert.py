"""What is particular to BERT-family embedders: folders and the hub's cache, pooling, missing and broken weights."""

import json
import shutil

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertModel

from anastyle import DataError, MissingError
from anastyle_plugins.embedders.bert import Bert

CAPTIONS = ["a round, brown lesion", "red spot", "one star-shaped lesion in the upper left; jagged, streaked and red"]


@pytest.fixture
def folder(tmp_path):
    """Write a tiny BERT and return its folder."""
    return tmp_path / Bert.tiny(tmp_path)["model"]


@pytest.fixture
def distilled(folder):
    """Make it a tiny DistilBERT, without a pooler, as medicalai/ClinicalBERT is."""
    config = DistilBertConfig(vocab_size=67, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=64)
    DistilBertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return a function that lays a folder into an empty cache as the hub does."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    def lay(folder, name):
        repository = cache / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, repository / "snapshots" / "0123abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0123abc")

    return lay


def load(model, **options):
    return Bert(Bert.Config(model=str(model), **options))


def test_a_folder_and_the_hubs_cache_give_the_same(folder, hub):
    hub(folder, "lab/tiny-bert")

    local, cached = load(folder), load("lab/tiny-bert")

    torch.testing.assert_close(local.embed(CAPTIONS).pooled, cached.embed(CAPTIONS).pooled)
    assert local.fingerprint() == cached.fingerprint()


def test_a_distilled_model_fits_too(distilled):
    embedder = load(distilled)

    embedded = embedder.embed(CAPTIONS)

    assert type(embedder.model).__name__ == "DistilBertModel"
    assert embedded.tokens.shape == (3, embedded.mask.shape[1], 16)


def test_pooled_is_the_mean_of_the_last_hidden_state_over_the_words(folder):
    embedder = load(folder)

    embedded = embedder.embed(CAPTIONS)

    for row, text in enumerate(CAPTIONS):
        hidden = embedder.model(**embedder.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert embedded.mask[row].sum() == len(hidden)
        torch.testing.assert_close(embedded.tokens[row, : len(hidden)], hidden, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(embedded.pooled[row], hidden.mean(dim=0), rtol=1e-4, atol=1e-5)
        assert embedded.tokens[row, len(hidden) :].abs().sum() == 0


def test_long_captions_are_cut(folder):
    assert load(folder, max_tokens=7).embed(CAPTIONS).tokens.shape[1] == 7
    assert load(folder, max_tokens=500).embed(["a " * 500]).tokens.shape[1] == 64  # the model's own limit


def test_dropout_stays_off(folder):
    embedder = load(folder).train()

    assert not embedder.model.training


def test_other_weights_have_another_fingerprint(folder):
    before = load(folder).fingerprint()

    BertForMaskedLM(BertConfig.from_pretrained(folder)).save_pretrained(folder)

    assert load(folder).fingerprint() != before


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_missing_file_is_named_alone(folder, file):
    for name in ("tokenizer.json", file):
        (folder / name).unlink(missing_ok=True)

    with pytest.raises(MissingError) as caught:
        load(folder)

    assert file in str(caught.value)
    assert sum(name in str(caught.value) for name in ("config.json", "model.safetensors", "vocab.txt")) == 1


def test_weights_of_another_model_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))

    with pytest.raises(DataError, match="the weights lack"):
        load(folder)


def test_pickled_weights_are_not_read(folder):
    model = load(folder).model
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")

    with pytest.raises(MissingError, match=r"not here: model\.safetensors"):
        load(folder)
