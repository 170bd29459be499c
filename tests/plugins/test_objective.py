"""What latent diffusion is trained on: timesteps, loss weights, colours; against what can be worked out by hand."""

import pytest
import torch

from anastyle_plugins.backbones._objective import colour_distance, contour_weights, draw_timesteps, snr_weights

CPU = torch.device("cpu")


def test_min_snr_weighs_clean_steps_less() -> None:
    kept = torch.tensor([0.999, 0.5, 0.001])  # signal to noise: 999, 1, 0.001

    assert snr_weights(kept, None, "epsilon").tolist() == [1, 1, 1]
    torch.testing.assert_close(snr_weights(kept, 5.0, "epsilon"), torch.tensor([5 / 999, 1, 1]))
    torch.testing.assert_close(snr_weights(kept, 5.0, "v_prediction"), torch.tensor([5 / 1000, 0.5, 0.001 / 1.001]),
                               rtol=1e-3, atol=0)  # fmt: skip


def test_timesteps_stay_in_range_and_crowd_where_they_are_asked_to() -> None:
    torch.manual_seed(0)
    uniform, crowded = (draw_timesteps(kind, 20_000, CPU) for kind in ("uniform", "logit_normal"))

    for drawn in (uniform, crowded):
        assert drawn.min() >= 0
        assert drawn.max() <= 999
    middle = [float(((drawn >= 300) & (drawn < 700)).float().mean()) for drawn in (uniform, crowded)]
    assert middle[0] == pytest.approx(0.40, abs=0.02)
    assert middle[1] == pytest.approx(0.5 * 0.40 + 0.5 * 0.603, abs=0.02)  # a normal within 0.847 of its mean: 0.603
    assert (crowded < 50).float().mean() > 0.02


def test_the_outline_weighs_more_and_the_mean_weight_is_one() -> None:
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, 16:48, 16:48] = 1

    weights = contour_weights(mask, 16, 4.0)

    torch.testing.assert_close(weights.mean((1, 2, 3)), torch.ones(2))
    assert weights[0, 0, 4, 4] == pytest.approx(5 * float(weights[0, 0, 0, 0]))  # a cell at the outline, one far off
    assert weights[0, 0, 8, 8] == weights[0, 0, 0, 0]  # and one deep inside
    assert (weights[1] == 1).all()


def test_colours_are_compared_by_mean_and_spread() -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 16, 16)

    assert colour_distance(image, image.flip(-1)) == pytest.approx(0, abs=1e-12)
    assert colour_distance(image, image + 0.5) == pytest.approx(0.25, rel=1e-4)
    assert colour_distance(image, image * 2) > 0.5
