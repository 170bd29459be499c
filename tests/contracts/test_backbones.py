"""What every backbone promises."""

import pytest
import torch

from anastyle import BACKBONES, Condition, Sample


def test_the_built_in_backbones_are_here():
    assert {"compact_dit", "pixart_lora", "medsegfactory", "sd15", "sdxl"} <= set(BACKBONES.names())


@pytest.fixture(params=BACKBONES.names())
def make(request, build, autoencoder):
    return lambda seed=0: build(BACKBONES, request.param, seed=seed, autoencoder=autoencoder, image_size=32)


def condition(backbone, n=4, **options):
    mask = torch.arange(3) < torch.tensor([3, 2, 1, 3])[:n, None]
    tokens = torch.randn(n, 3, backbone.width, **options)
    return Condition(tokens, mask, None if backbone.pooled is None else torch.randn(n, backbone.pooled))


@pytest.fixture
def encoded(batch):
    """Return the batch with the latents a backbone asks for."""

    def encoded(backbone):
        with torch.no_grad():
            batch.latent = backbone.encode(batch)
        return batch

    return encoded


def ask(backbone, asked, seed=1):
    """Return the prediction for fixed noise."""
    latent = torch.randn(4, *backbone.noise_shape(), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return backbone.predict(latent, torch.tensor([10, 400, 700, 990]), asked)


def test_a_latent_is_one_row_per_image(make, encoded):
    backbone = make().eval()

    latent = encoded(backbone).latent

    assert latent.shape[0] == 4
    assert latent.isfinite().all()


def test_losses_reach_every_parameter_and_the_condition(make, encoded, promises):
    backbone = make().train()
    asked = condition(backbone, requires_grad=True)

    total = promises.finite(backbone.losses(encoded(backbone), asked))

    assert any(p.requires_grad for p in backbone.parameters())
    promises.gradients(backbone, total)
    assert asked.tokens.grad is not None
    assert asked.tokens.grad.isfinite().all()


def test_a_prediction_has_the_shape_of_the_noise(make):
    backbone = make().eval()

    prediction = ask(backbone, condition(backbone))

    assert backbone.prediction in ("epsilon", "v_prediction", "sample")
    assert prediction.shape == (4, *backbone.noise_shape())
    assert prediction.isfinite().all()


def test_the_condition_matters_but_not_where_it_is_masked(make, shaken, alike):
    backbone = shaken(make()).eval()
    asked = condition(backbone)
    hidden = asked._replace(tokens=asked.tokens + 9 * ~asked.mask[..., None])
    other = asked._replace(tokens=asked.tokens + 1.0)

    alike(ask(backbone, asked), ask(backbone, hidden))
    assert not torch.allclose(ask(backbone, asked), ask(backbone, other), rtol=1e-4, atol=1e-5)


def test_the_autoencoder_is_not_the_backbones_to_train(make, autoencoder, encoded):
    backbone = make().train()
    before = autoencoder.fingerprint()

    backbone.losses(encoded(backbone), condition(backbone))

    assert not {id(p) for p in autoencoder.parameters()} & {id(p) for p in backbone.parameters() if p.requires_grad}
    assert autoencoder.fingerprint() == before


def test_a_scheduler_has_the_steps_it_was_asked_for(make):
    scheduler = make().scheduler(5)

    assert len(scheduler.timesteps) == 5


def test_a_sample_is_an_image(make):
    backbone = make().eval()

    with torch.no_grad():
        sample = backbone.decode(torch.randn(2, *backbone.noise_shape()))

    assert isinstance(sample, Sample)
    assert sample.image.shape == (2, 3, 32, 32)
    assert sample.image.isfinite().all()
    if sample.mask is not None:
        assert sample.mask.shape == (2, 1, 32, 32)


def test_a_prediction_is_the_same_every_time(make, promises):
    backbone = make()
    asked = condition(backbone)

    promises.steadiness(backbone, lambda part: ask(part, asked))


def test_a_saved_backbone_predicts_the_same(make, promises):
    backbone = make()
    asked = condition(backbone)

    promises.saving(backbone, make(seed=1), lambda part: ask(part, asked))
