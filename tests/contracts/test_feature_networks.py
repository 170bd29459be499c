"""What every feature network promises."""

import pytest
import torch

from anastyle import FEATURES, Feature

TRAINED = {"domain"}  # on a study's own images


def test_the_built_in_features_are_here():
    names = {"clip", "colour", "dinov2", "domain", "highfreq", "inception", "mobilenet_v2", "random_conv"}
    assert names <= set(FEATURES.names())


@pytest.fixture(scope="module", params=[name for name in FEATURES.names() if name not in TRAINED])
def network(request, tmp_path_factory) -> Feature:
    cls = FEATURES.get(request.param)
    options = cls.tiny(tmp_path_factory.mktemp(request.param)) if hasattr(cls, "tiny") else {}
    return cls(cls.Config(**options), classes=2)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 3, 24, 24) * 2 - 1


def test_features_are_finite_one_row_an_image_and_differ_between_images(network, image):
    features = network(image)

    assert features.shape == (3, features.shape[1])
    assert features.isfinite().all()
    assert not torch.allclose(features[0], features[1])


def test_an_image_has_the_same_features_alone_and_in_company_in_every_mode(network, image):
    together = network.train()(image)

    torch.testing.assert_close(together[1:2], network.eval()(image[1:2]), rtol=1e-3, atol=1e-4)


def test_nothing_is_trained_by_looking(network, image):
    assert not network(image).requires_grad
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_fingerprint_is_one_word_and_stays(network):
    assert network.fingerprint() == network.fingerprint()
    assert " " not in network.fingerprint()
