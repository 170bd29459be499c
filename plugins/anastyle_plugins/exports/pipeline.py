"""A run as a diffusers pipeline: words for anatomy and words for style in, images out.

    import anastyle_plugins.exports
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe(anatomy="a small round lesion", style="brown, smooth", generator=torch.Generator().manual_seed(0)).images[0]

No code comes with the weights: the classes are those of the installed package, which must be imported first.
"""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    ModelMixin,
    PixArtTransformer2DModel,
)
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image
from torch import Tensor

from anastyle import ALIGNERS, EMBEDDERS, FUSERS, FactorDims, MissingError
from anastyle.checkpoint import load_tensors, save_tensors
from anastyle.config import section
from anastyle.data.images import unsigned
from anastyle.interfaces import Condition
from anastyle.painting.chain import Chain, Guidance, Reader, denoise
from anastyle.painting.prompts import Prompt, by_factor
from anastyle_plugins.backbones._pixart import predict

HERE = "<here>"  # in a stored option: the folder it lies in
WEIGHTS = "diffusion_pytorch_model.safetensors"


class TextSide(ModelMixin, ConfigMixin):
    """Embedder, aligner and fuser as one component: its folder holds their options, weights and language model."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self, embedder: dict[str, Any], aligner: dict[str, Any], fuser: dict[str, Any],
        dims: list[list[int]] | None, width: int,
    ) -> None:  # fmt: skip
        super().__init__()
        cls, options = section(EMBEDDERS, embedder, "embedder")
        words = cls(options).requires_grad_(False)
        shapes = FactorDims(*(tuple(shape) for shape in dims)) if dims else None  # type: ignore[arg-type]
        wiring: dict[str, Any] = {"text": words.dims, "dims": shapes}
        cls, options = section(ALIGNERS, aligner, "aligner")
        reads = cls(options, **wiring)
        cls, options = section(FUSERS, fuser, "fuser")
        fuses = cls(options, **wiring | {"dims": reads.dims or shapes}, width=width)
        fuses.settle(words, reads)
        self.reader = Reader(words, reads, fuses)

    @classmethod
    def of(cls, chain: Chain, folder: Path) -> "TextSide":
        """Return a run's text side; ``folder`` is where its embedder is kept until it is saved."""
        options = chain.reader.embedder.export(folder)
        sections = chain.sections
        made = cls(
            embedder={"name": sections["embedder"]["name"], **options},
            aligner=sections["aligner"],
            fuser=sections["fuser"],
            dims=[list(shape) for shape in chain.dims] if chain.dims else None,
            width=chain.backbone.width,
        )
        for part in ("aligner", "fuser"):
            getattr(made.reader, part).load_state_dict(getattr(chain.reader, part).state_dict())
        return made.eval()  # type: ignore[return-value]

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Write options, weights, and the embedder in a folder of its own."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        inner = folder / "embedder"
        options = self.reader.embedder.export(inner)
        stored = {name: HERE if value == str(inner) else value for name, value in options.items()}
        kept = dict(self.config)
        content = {
            "_class_name": type(self).__name__,
            "embedder": {"name": kept["embedder"]["name"], **stored},
            **{name: kept[name] for name in ("aligner", "fuser", "dims", "width")},
        }
        (folder / self.config_name).write_text(json.dumps(content, indent=1), encoding="utf-8")
        tensors = {f"{p}.{n}": t for p in ("aligner", "fuser") for n, t in getattr(self.reader, p).state_dict().items()}
        save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "TextSide":
        """Read what ``save_pretrained`` wrote.

        Raises:
            MissingError: it is not there.
        """
        folder = Path(pretrained_model_name_or_path, options.get("subfolder") or "")
        if not (folder / cls.config_name).is_file():
            raise MissingError(f"{folder}: no {cls.config_name}, so not an exported text side.")
        content = json.loads((folder / cls.config_name).read_text(encoding="utf-8"))
        inner = str(folder / "embedder")
        content["embedder"] = {name: inner if value == HERE else value for name, value in content["embedder"].items()}
        made = cls(**{name: value for name, value in content.items() if not name.startswith("_")})
        tensors = load_tensors(folder / WEIGHTS)
        for part in ("aligner", "fuser"):
            own = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
            getattr(made.reader, part).load_state_dict(own)
        return made.eval()  # type: ignore[return-value]


class AnastylePipeline(DiffusionPipeline):
    """Text side, PixArt transformer with its LoRA merged, autoencoder and scheduler."""

    model_cpu_offload_seq = "text->transformer->vae"

    def __init__(
        self, text: TextSide, transformer: PixArtTransformer2DModel, vae: AutoencoderKL,
        scheduler: DPMSolverMultistepScheduler, image_size: int = 512, steps: int = 20, guidance: float = 3.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.register_modules(text=text, transformer=transformer, vae=vae, scheduler=scheduler)
        self.register_to_config(image_size=image_size, steps=steps, guidance=guidance)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *,
        anatomy: str | list[str] | None = None,
        style: str | list[str] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_anatomy: float | None = None,
        guidance_style: float | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Paint whole captions, or anatomy and style given apart, one image each; lists are as long as each other.

        Arguments:
            generator: on the CPU; one for all images, or one for each. A fresh one of seed s gives what ``anastyle
                sample --seeds s`` gives.
            num_inference_steps: and ``guidance_scale``: by default those of the run.
            output_type: ``pil``; ``pt`` for a tensor (B, 3, H, W) in [-1, 1].

        Raises:
            ValueError: neither words nor fields, or lists of different lengths.
        """
        prompts = _prompts(prompt, anatomy, style)
        guidance = Guidance(
            self.config["guidance"] if guidance_scale is None else guidance_scale, guidance_anatomy, guidance_style
        )
        noise = _noise(self._latent_shape(), len(prompts), generator)
        latent = denoise(
            self.text.reader, Denoiser(self), prompts, noise.to(self._execution_device),
            steps=num_inference_steps or self.config["steps"], guidance=guidance,
        )  # fmt: skip
        images: Any = self._decoded(latent)
        if output_type == "pil":
            images = [Image.fromarray(pixels) for pixels in unsigned(images).permute(0, 2, 3, 1).numpy()]
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _latent_shape(self) -> tuple[int, int, int]:
        side = self.config["image_size"] // 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        return self.transformer.config["in_channels"], side, side

    def _decoded(self, latent: Tensor) -> Tensor:
        scale, shift = self.vae.config["scaling_factor"], self.vae.config["shift_factor"] or 0.0
        return self.vae.decode((latent / scale + shift).to(self.vae.dtype)).sample


class Denoiser:
    """What of a pipeline the sampler asks for."""

    def __init__(self, pipeline: AnastylePipeline) -> None:
        self.transformer, self.config = pipeline.transformer, pipeline.scheduler.config

    def scheduler(self, steps: int) -> Any:
        """Return a scheduler without a past, set to that many steps."""
        scheduler: Any = DPMSolverMultistepScheduler.from_config(self.config)
        scheduler.set_timesteps(steps)
        return scheduler

    def predict(self, latent: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return epsilon or v, (B, C, h, w), in float32."""
        return predict(self.transformer, latent, timestep, condition)


def _prompts(prompt: Any, anatomy: Any, style: Any) -> list[Prompt]:
    if (prompt is None) == (anatomy is None and style is None):
        raise ValueError("give prompt, or anatomy and style, and not both")
    lists = [[words] if isinstance(words, str) else words for words in (prompt, anatomy, style)]
    lengths = {len(words) for words in lists if words is not None}
    if len(lengths) != 1:
        raise ValueError(f"anatomy and style are lists of different lengths: {sorted(lengths)}")
    count = lengths.pop()
    if lists[0] is not None:
        return [Prompt(words.strip()) for words in lists[0]]
    fields = [words if words is not None else [""] * count for words in lists[1:]]
    return [by_factor(*pair) for pair in zip(*fields, strict=True)]


def _noise(shape: tuple[int, ...], count: int, generator: Any) -> Tensor:
    """Return noise (count, *shape), float32 on the CPU."""
    generators = generator if isinstance(generator, list) else [generator] * count
    if len(generators) != count:
        raise ValueError(f"{len(generators)} generators for {count} images")
    return torch.stack([torch.randn(shape, generator=own) for own in generators])


diffusers.AnastylePipeline = AnastylePipeline  # type: ignore[attr-defined]  # where from_pretrained looks for the class
