"""What every backbone over an autoencoder's latents shares: the denoising objective, adapters, the colour loss."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from anastyle import Autoencoder, Backbone, Batch, Condition, ConfigError, Losses, Sample
from anastyle.accounting.memory import free_memory, measure, too_much
from anastyle.sampling import denoised
from anastyle_plugins.backbones._objective import colour_distance, contour_weights, draw_timesteps, snr_weights
from anastyle_plugins.lora import adapt

BETAS = {"scaled_linear": (0.00085, 0.012)}  # of the schedules that do not run from 1e-4 to 0.02

# facts: the paper's text says attention projections; its released code lists every linear layer
LORA_TARGETS = {
    "paper": ["to_q", "to_k", "to_v", "to_out.0"],
    "released": [
        "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "proj", "linear",
        "linear_1", "linear_2",
    ],
}  # fmt: skip


class LatentDiffusion(Backbone):
    """A denoising network, any of diffusers', over the latents of an autoencoder."""

    @dataclass
    class Config(Backbone.Config):
        lora_rank: int = 8
        """0 trains every weight."""
        lora_alpha: float = 8
        lora_targets: Literal["paper", "released"] = "released"
        prediction: Literal["epsilon", "v_prediction"] = "epsilon"
        schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
        min_snr: float | None = None
        """Gamma of min-SNR loss weights (Hang et al. 2023)."""
        timesteps: Literal["uniform", "logit_normal"] = "uniform"
        """``logit_normal``: half of them are drawn more densely in the middle, where shapes are decided."""
        contour_weight: float = 0.0
        """Extra weight of the error along the mask's outline: shape words are about a small part of an image."""
        colour: Literal["off", "one_step", "sampled"] = "one_step"
        """Colour loss, with a gradient (the released code's has none), on the one-step estimate of the image; or on one
        ``sampled`` from noise, back through every step, as in Med-Art."""
        colour_every: int = 500
        colour_batch: int = 8
        colour_steps: int = 20
        """Sampling steps of ``sampled``."""
        base_precision: Literal["fp32", "bf16"] = "fp32"
        """Of a frozen base; adapters, and whatever else is trained, stay in float32."""
        gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
        """Compute activations twice rather than keep them. ``auto``: on a GPU whose memory they would not fit."""

    part: ClassVar[str]  # what diffusers' pipelines call the network, and so do we
    piped: ClassVar[bool] = False  # can our pipeline hold it?

    def __init__(self, config: Any, *, autoencoder: Autoencoder, image_size: int) -> None:
        super().__init__(config)
        self.prediction = config.prediction
        self.reads = ("latent", "mask") if config.contour_weight else ("latent",)
        self.image_size = image_size
        object.__setattr__(self, "autoencoder", autoencoder)  # frozen, and not this module's to train or save
        from diffusers import DDPMScheduler  # late, as below: seconds of imports that a check does without

        start, end = BETAS.get(config.schedule, (1e-4, 0.02))
        self.train_schedule: Any = DDPMScheduler(
            beta_schedule=config.schedule, beta_start=start, beta_end=end, prediction_type=config.prediction
        )

    @property
    def network(self) -> Any:
        """The denoising network, with its adapters."""
        return getattr(self, self.part)

    def adopt(self, network: Any, *, width: int, pretrained: bool) -> None:
        """Take the network in, with adapters if it is pretrained and a rank was asked for.

        Arguments:
            width: of the tokens that it attends to.
        """
        from diffusers import AutoencoderKL

        channels = network.config.in_channels
        if channels != self.autoencoder.channels:
            raise ConfigError(
                f"backbone: the {self.part} paints {channels} latent channels, the autoencoder has "
                f"{self.autoencoder.channels}. Choose a pair that belongs together."
            )
        setattr(self, self.part, network)
        self.width = width
        self.undecided = self.config.gradient_checkpointing == "auto"
        self.checkpointing(self.config.gradient_checkpointing == "on")
        whole = self.piped and isinstance(getattr(self.autoencoder, "model", None), AutoencoderKL)
        self.exports = ("pipeline",) if whole else ()
        frozen = pretrained and self.config.lora_rank > 0
        if self.config.base_precision == "bf16" and not frozen:
            raise ConfigError(
                "backbone.base_precision: bf16 is for a frozen base, and here every weight is trained. "
                "Set it to fp32, or name a pretrained path and a lora_rank."
            )
        if frozen:
            self.exports = ("adapter", "peft", *self.exports)
            adapt(
                network, LORA_TARGETS[self.config.lora_targets], rank=self.config.lora_rank,
                alpha=self.config.lora_alpha, precision=self.config.base_precision,
            )  # fmt: skip

    def checkpointing(self, on: bool) -> None:
        """Compute each block's activations again in the backward pass, or keep them."""
        if on:
            self.network.enable_gradient_checkpointing()
        else:
            self.network.disable_gradient_checkpointing()

    def decide(self, noisy: Tensor, timestep: Tensor, condition: Condition) -> None:
        """Settle ``gradient_checkpointing: auto`` by what one image keeps and what the device has left."""
        self.undecided = False
        free = free_memory(noisy.device)
        if free is None:
            return
        one, painted = first(condition, 1), noisy[:1].detach().requires_grad_()
        with torch.enable_grad():
            kept = len(noisy) * measure(lambda: self.predict(painted, timestep[:1], one)).kept
            if self.config.colour != "off":
                seen = min(len(noisy), self.config.colour_batch)
                kept += seen * measure(lambda: self.shown(painted)).kept
        self.checkpointing(too_much(kept, free))

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Return latent moments (B, 2C, h, w)."""
        assert batch.image is not None
        return self.autoencoder.encode(batch.image)

    def losses(self, batch: Batch, condition: Condition) -> Losses:
        """Denoising (MSE, facts A8) and, every ``colour_every`` steps, the colour distribution of the estimate."""
        assert batch.latent is not None
        mean, logvar = batch.latent.chunk(2, dim=1)
        latent = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        noise = torch.randn_like(latent)
        timestep = draw_timesteps(self.config.timesteps, len(latent), latent.device)
        noisy = self.train_schedule.add_noise(latent, noise, timestep)
        if self.undecided and self.training:
            self.decide(noisy, timestep, condition)
        predicted = self.predict(noisy, timestep, condition)
        alpha, sigma = self._signal(timestep)
        target = noise if self.prediction == "epsilon" else alpha * noise - sigma * latent
        error = F.mse_loss(predicted, target, reduction="none")
        weights = snr_weights(alpha.square(), self.config.min_snr, self.prediction)
        if self.config.contour_weight and batch.mask is not None:
            weights = weights * contour_weights(batch.mask, error.shape[-1], self.config.contour_weight)
        losses = {"denoising": (error * weights).mean()}
        if self.config.colour != "off":
            due = batch.step % self.config.colour_every == 0
            estimate = self._estimate(noisy, predicted, alpha, sigma, condition) if due else None
            losses["colour"] = predicted.sum() * 0 if estimate is None else self._colour(batch.latent, estimate)
        return losses

    def adapter_sizes(self) -> dict[str, int]:
        """Return what adapters of this rank count, by the set of their targets."""
        sizes = {name: 0 for name in LORA_TARGETS}
        for path, layer in self.network.named_modules():
            path = path.removesuffix(".base_layer")
            weight = getattr(layer, "weight", None)
            if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) or weight is None or ".lora_" in path:
                continue
            for name, targets in LORA_TARGETS.items():
                if any(path == target or path.endswith(f".{target}") for target in targets):
                    sizes[name] += self.config.lora_rank * (weight.shape[0] + weight[0].numel())
        return sizes

    def _signal(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.train_schedule.alphas_cumprod.to(timestep.device)[timestep].view(-1, 1, 1, 1)
        return kept.sqrt(), (1 - kept).sqrt()

    def _estimate(self, noisy: Tensor, predicted: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """Return latents of the images that the model has in mind, of the first few of a batch."""
        few = slice(self.config.colour_batch)
        if self.config.colour == "sampled":
            return self._sampled(first(condition, self.config.colour_batch))
        if self.prediction == "epsilon":
            return (noisy[few] - sigma[few] * predicted[few]) / alpha[few].clamp(min=0.05)
        return alpha[few] * noisy[few] - sigma[few] * predicted[few]

    def _sampled(self, condition: Condition) -> Tensor:
        """Return latents denoised from noise without guidance; the gradient goes back through every step."""
        noise = torch.randn(len(condition.tokens), *self.noise_shape(), device=condition.tokens.device)

        def predict(latent: Tensor, at: Tensor, time: float) -> Tensor:
            return checkpoint(self.predict, latent, at, condition, use_reentrant=False)

        return denoised(self.scheduler(self.config.colour_steps), noise, predict)

    def _colour(self, moments: Tensor, estimate: Tensor) -> Tensor:
        """Return how far the colours of the estimates (b, C, h, w) are from those of the images (facts A8, B1)."""
        with torch.no_grad():
            mean, _ = moments[: len(estimate)].chunk(2, dim=1)
            shown = self.shown(mean)
        return colour_distance(self.shown(estimate), shown)

    def predict(self, latent: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return epsilon or v, (B, C, h, w), in float32 whatever the base computes in."""
        return self.ask(self.network, latent, timestep, condition)

    def ask(self, network: Any, latent: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return what a network of this kind predicts for noisy latents (B, C, h, w), in float32."""
        raise NotImplementedError

    def scheduler(self, steps: int) -> Any:
        """Return DPM-Solver++ (order 2, midpoint) over the training schedule."""
        from diffusers import DPMSolverMultistepScheduler

        scheduler: Any = DPMSolverMultistepScheduler.from_config(
            self.train_schedule.config, algorithm_type="dpmsolver++"
        )
        scheduler.set_timesteps(steps)
        return scheduler

    def noise_shape(self) -> tuple[int, ...]:
        """Return (C, h, w)."""
        side = self.image_size // self.autoencoder.factor
        return (self.autoencoder.channels, side, side)

    def shown(self, latent: Tensor) -> Tensor:
        """Return the images of latents, with a gradient."""
        return self.autoencoder.decode(latent)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Sample:
        """Return the images of latents."""
        return Sample(self.shown(latent))

    def fresh(self) -> Any:
        """Return the network as it was before training, without adapters."""
        raise NotImplementedError

    def merge(self) -> None:
        """Fold the LoRA into the weights it adapts; afterwards there is none."""
        from anastyle_plugins.exports.adapter import merge

        merge(self.network)
        self.exports = tuple(name for name in self.exports if name == "pipeline")

    def export(self, kind: str, folder: Path, chain: Any) -> None:
        """Write ``adapter``, ``peft`` or ``pipeline``; the last merges the LoRA."""
        from anastyle_plugins.exports.formats import EXPORTS

        EXPORTS[kind](self, folder, chain)


def first(condition: Condition, count: int) -> Condition:
    """Return the conditions of the first samples."""
    return Condition(*(None if part is None else part[:count] for part in condition))  # type: ignore[arg-type]
