"""What every autoencoder promises."""

import pytest

from anastyle import AUTOENCODERS


def test_the_built_in_autoencoders_are_here():
    assert {"kl"} <= set(AUTOENCODERS.names())


@pytest.fixture(params=AUTOENCODERS.names())
def make(request, build):
    return lambda seed=0: build(AUTOENCODERS, request.param, seed=seed)


def test_latents_and_images_have_the_announced_shape(make, batch):
    autoencoder = make().eval()
    side = 32 // autoencoder.factor

    moments = autoencoder.encode(batch.image)
    image = autoencoder.decode(moments[:, : autoencoder.channels])

    assert moments.shape == (4, 2 * autoencoder.channels, side, side)
    assert moments.isfinite().all()
    assert image.shape == batch.image.shape
    assert image.isfinite().all()


def test_losses_reach_every_parameter(make, batch, promises):
    autoencoder = make().train()
    if not autoencoder.trains(autoencoder.config):
        assert not any(p.requires_grad for p in autoencoder.parameters())
        return

    total = promises.finite(autoencoder.losses(batch))

    promises.gradients(autoencoder, total)


def test_encoding_twice_gives_the_same(make, batch, promises):
    promises.steadiness(make(), lambda autoencoder: autoencoder.encode(batch.image))


def test_a_saved_autoencoder_encodes_the_same(make, batch, promises):
    def answer(autoencoder):
        return autoencoder.encode(batch.image), autoencoder.fingerprint()

    promises.saving(make(), make(seed=1), answer)


def test_other_weights_have_another_fingerprint(make, shaken):
    autoencoder = make()
    before = autoencoder.fingerprint()
    for parameter in autoencoder.parameters():
        parameter.requires_grad_(True)

    shaken(autoencoder)

    assert autoencoder.fingerprint() != before
