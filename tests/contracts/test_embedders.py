"""What every embedder promises."""

import pytest
import torch

from anastyle import EMBEDDERS, Embedded, Embedder

CAPTIONS = [
    "a round lesion, brown",
    "one large star-shaped lesion in the upper left, with a jagged outline",
    "red spot",
]


def test_the_built_in_embedders_are_here():
    assert {"bert", "clip_text", "t5", "tfidf_svd"} <= set(EMBEDDERS.names())


@pytest.fixture(params=EMBEDDERS.names())
def make(request, build):
    def fitted(seed=0):
        embedder = build(EMBEDDERS, request.param, seed=seed)
        embedder.fit(CAPTIONS * 3)
        return embedder

    return fitted


def test_embeddings_have_the_announced_shape(make):
    embedder = make()

    embedded = embedder.embed(CAPTIONS)

    assert isinstance(embedded, Embedded)
    assert embedded.tokens.shape == (3, embedded.mask.shape[1], embedder.dims.token)
    assert embedded.pooled.shape == (3, embedder.dims.pooled)
    assert embedded.mask.dtype == torch.bool
    assert embedded.mask.any(dim=1).all()
    assert embedded.tokens.isfinite().all()
    assert embedded.pooled.isfinite().all()


def test_different_words_differ(make):
    pooled = make().embed(CAPTIONS).pooled

    assert torch.pdist(pooled).min() > 1e-4


def test_embedding_twice_gives_the_same(make, alike):
    embedder = make().train()

    alike(embedder.embed(CAPTIONS), embedder.embed(CAPTIONS), exactly=True)


def test_a_caption_is_embedded_without_its_neighbours(make, alike):
    embedder = make()

    together, alone = embedder.embed(CAPTIONS), embedder.embed(CAPTIONS[:1])

    alike(together.pooled[:1], alone.pooled)
    alike(together.tokens[0][together.mask[0]], alone.tokens[0][alone.mask[0]])


def test_nothing_is_trainable(make):
    embedder = make()

    assert not any(p.requires_grad for p in embedder.parameters())
    assert not embedder.embed(CAPTIONS).pooled.requires_grad


def test_the_same_model_has_the_same_fingerprint(make):
    one, other = make(), make(seed=1)

    assert one.fingerprint()
    assert one.fingerprint() == other.fingerprint()


def test_what_is_exported_embeds_the_same(make, alike, tmp_path):
    embedder = make()
    if type(embedder).export is Embedder.export:
        pytest.skip("it cannot be exported")

    options = embedder.export(tmp_path / "exported")

    again = type(embedder)(type(embedder).Config(**options)).eval()
    alike(again.embed(CAPTIONS), embedder.embed(CAPTIONS))
