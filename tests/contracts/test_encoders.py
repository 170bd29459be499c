"""What every encoder promises."""

import pytest
import torch

from anastyle import ENCODERS, Encoding, Factors


def test_the_built_in_encoders_are_here():
    assert {"sdnet"} <= set(ENCODERS.names())


@pytest.fixture(params=ENCODERS.names())
def make(request, build):
    return lambda seed=0: build(ENCODERS, request.param, seed=seed, image_size=32)


def test_factors_have_the_announced_shape(make, batch):
    encoder = make().eval()

    factors = encoder(batch.image)

    assert isinstance(factors, Factors)
    assert factors.anatomy.shape == (4, *encoder.dims.anatomy)
    assert factors.style.shape == (4, *encoder.dims.style)
    assert factors.anatomy.dtype == factors.style.dtype == torch.float32
    assert factors.anatomy.isfinite().all()
    assert factors.style.isfinite().all()


def test_losses_reach_every_parameter(make, batch, promises):
    encoder = make().train()

    total = promises.finite(encoder.losses(batch))

    promises.gradients(encoder, total)


def test_losses_need_no_mask(make, batch, promises):
    encoder = make().train()
    with_masks = set(encoder.losses(batch))
    batch.mask = None

    losses = encoder.losses(batch)

    assert set(losses) == with_masks
    promises.gradients(encoder, promises.finite(losses))


def test_an_image_is_read_the_same_every_time(make, batch, promises):
    promises.steadiness(make(), lambda encoder: encoder(batch.image))


def test_an_image_is_read_without_its_neighbours(make, batch, alike):
    encoder = make().eval()

    together, alone = encoder(batch.image), encoder(batch.image[1:2])

    alike(Factors(*(factor[1:2] for factor in together)), alone)


def test_a_saved_encoder_reads_the_same(make, batch, promises):
    promises.saving(make(), make(seed=1), lambda encoder: encoder(batch.image))


def test_a_description_fits_the_image(make, batch, alike):
    encoder = make().eval()

    encoding = encoder.describe(batch.image)

    assert isinstance(encoding, Encoding)
    alike(encoding.factors, encoder(batch.image))
    if encoding.maps is not None:
        assert encoding.maps.shape[0] == 4
        assert encoding.maps.shape[2:] == (32, 32)
        alike(encoding.maps.sum(dim=1), torch.ones(4, 32, 32))
    if encoding.reconstruction is not None:
        assert encoding.reconstruction.shape == batch.image.shape
