"""The offline text encoder and what passes its words on."""

from pathlib import Path

import pytest
import torch

from anastyle import ALIGNERS, ConfigError, Keep, Reading, TextDims
from anastyle_plugins.datasets.phantom import Phantom
from anastyle_plugins.embedders.tfidf_svd import TfidfSVD
from anastyle_plugins.fusers.text_tokens import TextTokens, merge_neighbours


@pytest.fixture(scope="module")
def captions() -> list[str]:
    phantom = Phantom(Phantom.Config())
    return [phantom.record(i, "train").caption.text for i in range(150)]


@pytest.fixture(scope="module")
def embedder(captions: list[str]) -> TfidfSVD:
    embedder = TfidfSVD(TfidfSVD.Config(dim=32, pooled_dim=48))
    embedder.fit(captions)
    return embedder


def test_captions_that_say_the_same_lie_closer(embedder: TfidfSVD) -> None:
    same, order, other = embedder.embed([
        "a small round lesion with a sharp border",
        "a sharp border around a small round lesion",
        "reticular texture under vignetted light",
    ]).pooled  # fmt: skip

    cosine = torch.nn.functional.cosine_similarity
    assert cosine(same, order, dim=0) > cosine(same, other, dim=0) + 0.3


def test_a_word_is_read_with_its_neighbours(embedder: TfidfSVD) -> None:
    tokens = embedder.embed(["upper left", "upper right"]).tokens

    assert not torch.allclose(tokens[0, 0], tokens[1, 0])
    assert torch.equal(tokens[0, 0, 32:64], tokens[1, 0, 32:64]), "the word itself is the same"


def test_words_never_seen_leave_an_empty_caption(embedder: TfidfSVD) -> None:
    embedded = embedder.embed(["zygomorphic quux"])

    assert embedded.mask.sum() == 1
    assert embedded.tokens.abs().sum() == 0
    assert torch.isfinite(embedded.pooled).all()


def test_a_saved_fit_is_the_same_fit(embedder: TfidfSVD, captions: list[str], tmp_path: Path) -> None:
    embedder.save(tmp_path / "fit")

    again = TfidfSVD(TfidfSVD.Config(path=str(tmp_path / "fit")))
    again.fit(["something else entirely"])

    assert again.dims == embedder.dims == TextDims(96, 48)
    assert again.fingerprint() == embedder.fingerprint()
    torch.testing.assert_close(again.embed(captions[:3]), embedder.embed(captions[:3]))


def test_embedding_before_a_fit_says_so() -> None:
    with pytest.raises(ConfigError, match="not fitted"):
        TfidfSVD(TfidfSVD.Config()).embed(["a lesion"])


def test_merged_words_are_fewer_and_say_the_same() -> None:
    tokens, mask = torch.randn(16, 8, 4), torch.ones(16, 8, dtype=torch.bool)
    mask[:, 6:] = False

    merged, left = merge_neighbours(tokens, mask, 1.0)

    counts = left.sum(1)
    assert counts.min() >= 1
    assert counts.max() <= 4
    one = int((counts == 1).nonzero()[0])
    torch.testing.assert_close(merged[one, left[one]][0], tokens[one, :6].sum(0) / 6**0.5)


def test_a_dropped_caption_is_one_null_token() -> None:
    fuser = TextTokens(TextTokens.Config(), text=TextDims(4, 4), dims=None, width=4).eval()
    reading = Reading(tokens=torch.randn(2, 5, 4), mask=torch.ones(2, 5, dtype=torch.bool), pooled=torch.randn(2, 4))
    kept = torch.tensor([True, False])

    condition = fuser(reading, Keep(kept, kept))

    assert condition.mask.sum(1).tolist() == [5, 1]
    assert torch.equal(condition.tokens[1, 0], fuser.null[0])
    assert condition.pooled is not None
    assert condition.pooled[1].abs().sum() == 0


def test_a_caption_is_dropped_where_neither_factor_is_to_be_shown() -> None:
    fuser = TextTokens(TextTokens.Config(), text=TextDims(4, 4), dims=None, width=4).eval()
    reading = Reading(tokens=torch.randn(4, 5, 4), mask=torch.ones(4, 5, dtype=torch.bool), pooled=torch.randn(4, 4))

    condition = fuser(reading, Keep(torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])))

    assert condition.mask.sum(1).tolist() == [5, 5, 5, 1]


def test_words_learn_their_interface_as_factors_do() -> None:
    text = TextDims(token=12, pooled=4)
    known, new = (
        TextTokens(TextTokens.Config(project=kind), text=text, dims=None, width=12) for kind in ("auto", "branch")
    )
    tokens = torch.randn(2, 5, 12)
    reading = Reading(tokens=tokens, mask=torch.ones(2, 5, dtype=torch.bool), pooled=torch.randn(2, 4))

    assert torch.equal(known(reading).tokens, tokens)
    assert [name for name, _ in known.named_parameters()] == ["null"]
    assert new(reading).tokens.shape == tokens.shape
    alone = Reading(tokens=tokens[:, 2:3], mask=reading.mask[:, :1], pooled=reading.pooled)
    torch.testing.assert_close(new(reading).tokens[:, 2:3], new(alone).tokens)  # word by word


def test_a_dropped_caption_is_the_empty_one(embedder: TfidfSVD) -> None:
    aligner = ALIGNERS.get("token_reader")(None, text=embedder.dims)
    fuser = TextTokens(TextTokens.Config(dropped="empty"), text=embedder.dims, dims=None, width=6).eval()
    with pytest.raises(ValueError, match="settle comes first"):
        fuser(aligner(embedder.embed(["red"])), Keep(torch.zeros(1).bool(), torch.zeros(1).bool()))
    fuser.settle(embedder, aligner)
    kept = torch.tensor([True, False])

    both = fuser(aligner(embedder.embed(["a small round lesion", "red"])), Keep(kept, kept))
    one, other = (fuser(aligner(embedder.embed([words]))) for words in ("a small round lesion", ""))

    for row, alone in enumerate((one, other)):
        torch.testing.assert_close(both.tokens[row][both.mask[row]], alone.tokens[0][alone.mask[0]])
        torch.testing.assert_close(both.pooled[row], alone.pooled[0])  # type: ignore[index]


def test_a_dropped_caption_is_zeros_in_every_place() -> None:
    fuser = TextTokens(TextTokens.Config(dropped="zeros"), text=TextDims(4, 4), dims=None, width=4).eval()
    reading = Reading(tokens=torch.randn(1, 5, 4), mask=torch.ones(1, 5, dtype=torch.bool), pooled=torch.randn(1, 4))
    dropped = torch.tensor([False])

    condition = fuser(reading, Keep(dropped, dropped))

    assert condition.mask.all()
    assert condition.tokens.shape == (1, 5, 4)
    assert condition.tokens.abs().sum() == condition.pooled.abs().sum() == 0  # type: ignore[union-attr]
    assert not list(fuser.parameters())


def test_an_empty_caption_read_by_a_trained_aligner_is_refused(embedder: TfidfSVD) -> None:
    aligner = ALIGNERS.get("t5_lora")
    made = aligner(aligner.Config(path=None, layers=1), text=embedder.dims)
    fuser = TextTokens(TextTokens.Config(dropped="empty"), text=embedder.dims, dims=None, width=4)

    with pytest.raises(ConfigError, match=r"fuser\.dropped: the aligner is trained"):
        fuser.settle(embedder, made)
