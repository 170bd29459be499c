"""The reference above every encoder: the phantom's factors as its captions state them."""

import numpy as np
import torch

from anastyle_plugins.aligners.as_embedded import AsEmbedded
from anastyle_plugins.datasets.phantom import draw_factors, write_caption
from anastyle_plugins.embedders.phantom_factors import SIZES, VALUES, PhantomFactors


def test_every_caption_of_the_set_states_just_its_factors():
    embedder, rng = PhantomFactors(PhantomFactors.Config()), np.random.default_rng(0)

    for _ in range(300):
        factors = draw_factors(rng, wide=False)
        caption = write_caption(rng, "dermoscopy", factors, generic=False)
        values = embedder.embed([caption.text]).pooled[0]
        assert {VALUES[place] for place in values.nonzero().flatten().tolist()} == set(factors.items())


def test_words_within_words_are_not_mistaken():
    embedder = PhantomFactors(PhantomFactors.Config())

    asymmetric, symmetric = embedder.embed(["an asymmetric lesion", "a symmetric lesion"]).pooled

    assert asymmetric.sum() == symmetric.sum() == 1
    assert not torch.equal(asymmetric, symmetric)


def test_anatomy_and_style_are_parted_between_their_factors():
    embedder = PhantomFactors(PhantomFactors.Config())
    aligner = AsEmbedded(AsEmbedded.Config(), text=embedder.dims)

    read = aligner(embedder.embed(["a round lesion, top left", "grainy, red"])).factors

    assert (aligner.dims.anatomy[1], aligner.dims.style[1]) == SIZES
    assert read.anatomy.sum(dim=(1, 2)).tolist() == [2, 0]
    assert read.style.sum(dim=(1, 2)).tolist() == [0, 2]
