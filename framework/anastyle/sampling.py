"""From noise to latents: one sampler, many guides.

A guide says, for each time, which conditions are asked and with which weights; the prediction is their weighted sum.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from anastyle.interfaces import Backbone, Condition, Fuser, Guide, Keep, Reading


def conditions(
    fuser: Fuser, reading: Reading, size: int, device: torch.device, given: Keep | None = None
) -> dict[str, Condition]:
    """Return the conditions of B readings with both factors, with each alone, and with neither.

    A factor that is not ``given`` is shown in none of them.
    """
    yes = torch.ones(size, dtype=torch.bool, device=device)
    anatomy, style = given or (yes, yes)
    shown = {"both": (anatomy, style), "anatomy": (anatomy, ~yes), "style": (~yes, style), "neither": (~yes, ~yes)}
    return {name: fuser(reading, Keep(*keep)) for name, keep in shown.items()}


def classifier_free(asked: dict[str, Condition], scale: float, interval: tuple[float, float] = (0.0, 1.0)) -> Guide:
    """Classifier-free guidance (Ho and Salimans 2022), on an interval of times (Kynkäänniemi et al. 2024)."""

    def guide(time: float) -> list[tuple[Condition, float]]:
        if scale == 1 or not interval[0] <= time <= interval[1]:
            return [(asked["both"], 1.0)]
        return [(asked["both"], scale), (asked["neither"], 1 - scale)]

    return guide


def by_factor(asked: dict[str, Condition], anatomy: float, style: float) -> Guide:
    """Guidance with a scale of its own for each factor: e_0 + a (e_a - e_0) + s (e_s - e_0) (Liu et al. 2022).

    Where the factors' contributions add, equal scales are classifier-free guidance of that scale. What the two say only
    together is left out.
    """

    def guide(time: float) -> list[tuple[Condition, float]]:
        weights = {"anatomy": anatomy, "style": style, "neither": 1 - anatomy - style}
        return [(asked[name], weight) for name, weight in weights.items() if weight]  # what weighs nothing is not asked

    return guide


@torch.no_grad()
def sample(backbone: Backbone, guide: Guide, noise: Tensor, *, steps: int) -> Tensor:
    """Return latents (B, C, h, w) denoised from ``noise`` of the same shape."""

    def predict(latent: Tensor, at: Tensor, time: float) -> Any:
        return sum(
            weight * backbone.predict(latent, at, condition).to(latent.dtype)  # under autocast it comes in less
            for condition, weight in guide(time)
        )

    return denoised(backbone.scheduler(steps), noise, predict)


def denoised(scheduler: Any, noise: Tensor, predict: Callable[[Tensor, Tensor, float], Tensor]) -> Tensor:
    """Return what a scheduler makes of noise (B, C, h, w).

    Arguments:
        predict: of latents, their integer timesteps (B,), and the time in [0, 1] that these are.
    """
    total = scheduler.config.num_train_timesteps
    latent = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        at = torch.full((len(latent),), int(timestep), device=latent.device)
        predicted = predict(scheduler.scale_model_input(latent, timestep), at, int(timestep) / total)
        latent = scheduler.step(predicted, timestep, latent, return_dict=False)[0]
    return latent
