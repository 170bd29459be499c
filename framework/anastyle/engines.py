"""How a step is taken: by devices that each hold the whole model, or by devices that share it out between them.

The training loop knows one interface. ``Whole`` is plain PyTorch, on one device or on several (DDP); ``Shared`` is
DeepSpeed's ZeRO, any stage. What they give to a checkpoint is the same: every tensor whole, under its own name.
"""

import logging
import math
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from anastyle.checkpoint import load_optimizer_state, load_trainable_state, optimizer_state, trainable_state
from anastyle.errors import ConfigError
from anastyle.interfaces import Batch, Losses
from anastyle.training_settings import Settings

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
DTYPES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
MOMENTS = ("exp_avg", "exp_avg_sq")  # what these optimizers remember of each number, beside the count of steps


def engine_for(stage: nn.Module, settings: Settings, accelerator: Accelerator) -> "Whole | Shared":
    """Return what trains a stage under this launcher.

    Raises:
        ConfigError: fp16 under DeepSpeed.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return Shared(stage, settings, accelerator)
    return Whole(stage, settings, accelerator)


class InPrecision(nn.Module):
    """A stage that computes in its precision. From inside: DeepSpeed switches off an autocast around its engine."""

    def __init__(self, stage: nn.Module, precision: str) -> None:
        super().__init__()
        self.stage, self.dtype = stage, DTYPES[precision]

    def forward(self, batch: Batch, step: int) -> Losses:
        with torch.autocast(batch.index.device.type, self.dtype, enabled=self.dtype is not None):
            return self.stage(batch, step)


class Whole:
    """Every device holds the whole model; gradients are averaged over the devices."""

    def __init__(self, stage: nn.Module, settings: Settings, accelerator: Accelerator) -> None:
        self.stage, self.accelerator = stage, accelerator
        self.model = accelerator.prepare(InPrecision(stage, settings.precision))
        if isinstance(self.model, nn.parallel.DistributedDataParallel):
            self.model.broadcast_buffers = False  # statistics.py keeps them alike
        self.named = trained(stage)
        self.optimizer = optimizer(self.named, settings, accelerator.device)
        self.max_norm = settings.max_grad_norm or math.inf
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=settings.precision == "fp16")

    def begin(self, lr: float) -> None:
        """Forget the gradients of the last step."""
        set_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)

    def losses(self, batch: Batch, step: int) -> Losses:
        """Return a batch's terms, in this device's part of the graph."""
        return self.model(batch, step)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add to the gradients; with the ``last`` batch of a step they are averaged over the devices."""
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            self.scaler.scale(loss).backward()

    def clip(self) -> dict[str, Tensor]:
        """Clip the gradients; return their norm before."""
        self.scaler.unscale_(self.optimizer)
        return {"grad_norm": nn.utils.clip_grad_norm_(self.named.values(), self.max_norm)}

    def step(self) -> dict[str, float]:
        """Move the weights; return what is known only now."""
        self.scaler.step(self.optimizer)  # the scaler itself skips gradients that its scale made infinite
        self.scaler.update()
        return {}

    def skip(self) -> None:
        """Leave the weights where they are."""
        self.scaler.update()

    def parameters(self) -> dict[str, Tensor]:
        """Return what is trained, whole."""
        return {name: value.detach() for name, value in self.named.items()}

    def weights(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps of the stage, whole."""
        return trainable_state(self.stage)

    def moments(self) -> dict[str, Tensor]:
        """Return what the optimizer remembers, whole."""
        return optimizer_state(self.optimizer, list(self.named))

    def remember(self, moments: Mapping[str, Tensor]) -> None:
        """Put what ``moments`` returned back."""
        load_optimizer_state(self.optimizer, list(self.named), moments)

    def finish(self) -> None:
        """Leave the stage with its final weights."""


class Shared:
    """The devices share out optimizer state (ZeRO 1), gradients too (2), and weights too (3).

    DeepSpeed takes apart the module that it is given, so it is given a copy; the stage stays whole where it is. All
    methods but ``losses`` and ``begin`` are for all ranks at once.
    """

    def __init__(self, stage: nn.Module, settings: Settings, accelerator: Accelerator) -> None:
        if settings.precision == "fp16":
            raise ConfigError(f"stages.{stage.name}.precision: fp16 does not go with DeepSpeed. Use bf16 or no.")
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # at every step
        passes, size = settings.shared(accelerator.num_processes)
        assert accelerator.deepspeed_plugin is not None
        accelerator.deepspeed_plugin.deepspeed_config |= {  # all of it: one plugin serves every stage
            "train_micro_batch_size_per_gpu": size,
            "gradient_accumulation_steps": passes,
            "train_batch_size": size * passes * accelerator.num_processes,
            "gradient_clipping": settings.max_grad_norm or 0.0,
        }
        accelerator.gradient_accumulation_steps = passes
        self.home, self.stage = stage, deepcopy(stage)
        self.named = trained(self.stage)
        plain = optimizer(self.named, settings, accelerator.device)
        self.engine, self.optimizer = accelerator.prepare(InPrecision(self.stage, settings.precision), plain)
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=False)

    def begin(self, lr: float) -> None:
        """Set the rate; DeepSpeed forgets gradients by itself."""
        set_rate(self.optimizer, lr)

    def losses(self, batch: Batch, step: int) -> Losses:
        """Return a batch's terms, in this device's part of the graph."""
        return self.engine(batch, step)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add to the gradients; with the ``last`` batch of a step they are averaged over the devices."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss, scale_wrt_gas=False)

    def clip(self) -> dict[str, Tensor]:
        """DeepSpeed clips in ``step``."""
        return {}

    def step(self) -> dict[str, float]:
        """Clip, and move the weights, unless a gradient is not finite; return the norm."""
        self.engine.step()
        return {"grad_norm": float(self.engine.get_global_grad_norm() if self.engine.was_step_applied() else math.inf)}

    def skip(self) -> None:
        """Leave the weights where they are: DeepSpeed drops a step only where a gradient is not finite."""
        from deepspeed.utils import safe_get_full_grad, safe_set_full_grad

        first = next(iter(self.named.values()))
        gradient = safe_get_full_grad(first)
        assert gradient is not None
        safe_set_full_grad(first, torch.full_like(gradient, math.nan))
        self.engine.step()

    def parameters(self) -> dict[str, Tensor]:
        """Return what is trained, gathered."""
        with self.gathered():
            return {name: value.detach().clone() for name, value in self.named.items()}

    def weights(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps of the stage, gathered."""
        with self.gathered():
            return {name: value.clone() for name, value in trainable_state(self.stage).items()}

    def moments(self) -> dict[str, Tensor]:
        """Return what the optimizer remembers, gathered."""
        from deepspeed.utils import safe_get_full_optimizer_state

        count = next((state["step"] for state in self.base.state.values() if "step" in state), None)
        if count is None:  # no step was taken yet
            return {}
        found = {}
        for name, value in self.named.items():
            found[f"{name}.step"] = count
            for key in MOMENTS:
                moment = safe_get_full_optimizer_state(value, key)
                assert moment is not None
                found[f"{name}.{key}"] = moment.clone()
        return found

    def remember(self, moments: Mapping[str, Tensor]) -> None:
        """Put moments back, of whichever engine they are."""
        from deepspeed.utils import safe_set_full_optimizer_state

        if not moments:
            return
        count = next(value for name, value in moments.items() if name.endswith(".step"))
        zero = self.optimizer.optimizer
        for flat in getattr(zero, "fp32_partitioned_groups_flat", None) or zero.single_partition_of_fp32_groups:
            self.base.state[flat] = {key: torch.zeros_like(flat) for key in MOMENTS}
            self.base.state[flat]["step"] = count.clone().to(flat.device if self.base.defaults["fused"] else "cpu")
        if hasattr(zero, "_lazy_init_hp_params_optimizer_state"):
            zero._lazy_init_hp_params_optimizer_state()  # ZeRO 1 and 2 find moments by this
        for name, value in self.named.items():
            for key in MOMENTS:
                safe_set_full_optimizer_state(value, moments[f"{name}.{key}"].to(self.engine.device), key)

    def finish(self) -> None:
        """Leave the stage with its final weights."""
        load_trainable_state(self.home, self.weights())

    @property
    def base(self) -> torch.optim.Optimizer:
        """The optimizer below DeepSpeed's."""
        return self.optimizer.optimizer.optimizer

    def gathered(self) -> Any:
        """Return a context in which what is trained is whole."""
        from deepspeed.runtime.zero import GatheredParameters

        return GatheredParameters(list(self.named.values()))


def trained(stage: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained."""
    return {name: value for name, value in stage.named_parameters() if value.requires_grad}


def optimizer(named: Mapping[str, nn.Parameter], settings: Settings, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimizer that the settings ask for."""
    return OPTIMIZERS[settings.optimizer](
        named.values(), settings.lr, betas=(settings.betas[0], settings.betas[1]),
        weight_decay=settings.weight_decay, fused=device.type == "cuda",
    )  # fmt: skip


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
