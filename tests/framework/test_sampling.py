"""One sampler, many guides."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from anastyle import Condition
from anastyle.sampling import by_factor, classifier_free, sample
from anastyle.stages.settings import DiffuseSettings
from anastyle.stages.training import Diffuse

NAMES = ("both", "anatomy", "style", "neither")


def asked() -> dict[str, Condition]:
    return {
        name: Condition(torch.full((1, 1, 1), float(i)), torch.ones(1, 1, dtype=torch.bool))
        for i, name in enumerate(NAMES)
    }


def test_an_oracle_is_sampled_to_the_truth() -> None:
    truth = torch.randn(3, 4, 8, 8)
    scheduler = DPMSolverMultistepScheduler(prediction_type="sample", algorithm_type="dpmsolver++")
    scheduler.set_timesteps(8)
    backbone: Any = SimpleNamespace(scheduler=lambda steps: scheduler, predict=lambda latent, at, condition: truth)

    found = sample(backbone, lambda time: [(asked()["both"], 1.0)], torch.randn_like(truth), steps=8)

    torch.testing.assert_close(found, truth, atol=1e-2, rtol=0)


@pytest.mark.parametrize("time", [0.0, 0.5, 1.0])
def test_the_weights_of_every_guide_sum_to_one(time: float) -> None:
    conditions = asked()

    for guide in (
        classifier_free(conditions, 3.0),
        classifier_free(conditions, 1.0),
        by_factor(conditions, 4.0, 1.0),
        by_factor(conditions, 2.0, 5.0),
    ):
        assert sum(weight for _, weight in guide(time)) == pytest.approx(1.0)


def test_guidance_of_one_asks_once() -> None:
    assert len(classifier_free(asked(), 1.0)(0.5)) == 1


def test_outside_its_interval_guidance_rests() -> None:
    guide = classifier_free(asked(), 3.0, (0.2, 0.8))

    assert [len(guide(time)) for time in (0.1, 0.5, 0.9)] == [1, 2, 1]


def test_scales_by_factor_weigh_what_each_factor_adds() -> None:
    weights = {float(condition.tokens): weight for condition, weight in by_factor(asked(), 3.0, 2.0)(0.5)}

    assert weights == {1.0: 3.0, 2.0: 2.0, 3.0: -4.0}


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.5, 3.0, 7.0])
def test_equal_scales_by_factor_are_one_guidance_where_factors_add(scale: float) -> None:
    nothing, anatomy, style = torch.randn(3, 8).unbind()
    said = {"both": nothing + anatomy + style, "anatomy": nothing + anatomy, "style": nothing + style,
            "neither": nothing}  # fmt: skip
    predicted = {float(at): said[name] for at, name in enumerate(NAMES)}

    def total(guide: Any) -> torch.Tensor:
        return torch.stack([weight * predicted[float(condition.tokens)] for condition, weight in guide(0.5)]).sum(0)

    torch.testing.assert_close(total(by_factor(asked(), scale, scale)), total(classifier_free(asked(), scale)))


def test_a_factor_alone_is_guided_away_from_nothing() -> None:
    weights = {float(condition.tokens): weight for condition, weight in by_factor(asked(), 4.0, 0.0)(0.5)}

    assert weights == {1.0: 4.0, 3.0: -3.0}


def test_factors_are_withheld_as_often_as_asked() -> None:
    parts = [torch.nn.Linear(1, 1) for _ in range(3)]
    parts[2].reads = ("latent",)  # type: ignore[assignment]
    stage = Diffuse(*parts, DiffuseSettings(drop_both=0.1, drop_anatomy=0.2, drop_style=0.3))  # type: ignore[arg-type]

    keep = stage.keep(20_000, torch.device("cpu"))

    shares = [
        (~keep.anatomy & ~keep.style).float().mean(),
        (~keep.anatomy & keep.style).float().mean(),
        (keep.anatomy & ~keep.style).float().mean(),
    ]
    assert [float(share) for share in shares] == pytest.approx([0.1, 0.2, 0.3], abs=0.015)
