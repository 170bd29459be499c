"""The parts of one run, built when they are first asked for and wired by what the others give."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from anastyle.config import section
from anastyle.data.cache import cached
from anastyle.data.loader import in_order
from anastyle.data.split import PreparedSet, Split
from anastyle.devices import to_device
from anastyle.errors import ConfigError
from anastyle.interfaces import Aligner, Autoencoder, Backbone, Embedded, Embedder, Encoder, Factors, Fuser, fused_dims
from anastyle.registry import ALIGNERS, AUTOENCODERS, BACKBONES, EMBEDDERS, ENCODERS, FUSERS, Registry
from anastyle.streams import seed_for


class Parts:
    """Encoder, embedder, aligner, fuser, autoencoder and backbone of a run, and its data."""

    def __init__(self, config: dict[str, Any], data: PreparedSet, *, seed: int, cache: Path) -> None:
        self.config = config
        self.data = data
        self.seed = seed
        self.cache = cache
        self.image_size: int = config["data"]["image_size"]
        self.captions: str = config["data"].get("captions", "attributes")

    @cached_property
    def train(self) -> Split:
        """The training split."""
        return self.data.split("train", image_size=self.image_size, captions=self.captions)

    @cached_property
    def test(self) -> Split:
        """The held-out split."""
        return self.data.split("test", image_size=self.image_size, captions=self.captions)

    @cached_property
    def validation(self) -> Split | None:
        """What choices are made on, where the set has a third part."""
        if not self.data.has_validation:
            return None
        return self.data.split("validation", image_size=self.image_size, captions=self.captions)

    def held_out(self, name: str) -> Split:
        """Return the split that is painted, test or validation.

        Raises:
            DataError: the set has no such split.
        """
        if name == "validation" and self.validation is not None:
            return self.validation
        return self.test if name == "test" else self.data.split(name)

    def untrained(self) -> "Parts":
        """Return aligner, fuser and backbone as they are built, over the same data and the parts that paint frozen."""
        twin = Parts(self.config, self.data, seed=self.seed, cache=self.cache)
        for name in ("train", "validation", "test", "autoencoder", "encoder", "embedder"):
            setattr(twin, name, getattr(self, name))
        return twin

    def _build(self, registry: Registry, **wiring: Any) -> Any:
        mapping = self.config.get(registry.kind)
        if mapping is None:
            raise ConfigError(f"{registry.kind}: this experiment needs one. Name it in the file.")
        cls, config = section(registry, mapping, registry.kind)
        torch.manual_seed(seed_for(self.seed, "init", registry.kind))  # an added part does not shift the others
        return cls(config, **wiring)

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The latent space; frozen unless its stage trains it."""
        return self._build(AUTOENCODERS)

    @cached_property
    def encoder(self) -> Encoder | None:
        """The visual encoder, where the system has one."""
        return self._build(ENCODERS, image_size=self.image_size) if self.config.get("encoder") else None

    @cached_property
    def embedder(self) -> Embedder:
        """The frozen language model, fitted on the training captions if it is of that kind."""
        embedder = self._build(EMBEDDERS)
        embedder.fit([caption.text for caption in self.train.captions])
        return embedder.requires_grad_(False).eval()

    @cached_property
    def aligner(self) -> Aligner:
        """What reads factors or tokens off embedded captions."""
        return self._build(ALIGNERS, text=self.embedder.dims, dims=self.encoder.dims if self.encoder else None)

    @cached_property
    def backbone(self) -> Backbone:
        """The latent diffusion model."""
        return self._build(BACKBONES, autoencoder=self.autoencoder, image_size=self.image_size)

    @cached_property
    def fuser(self) -> Fuser:
        """What turns readings into condition tokens of the backbone's width."""
        dims = fused_dims(self.encoder, self.aligner)
        text, pooled = self.embedder.dims, self.backbone.pooled
        fuser: Fuser = self._build(FUSERS, text=text, dims=dims, width=self.backbone.width)
        if pooled is not None and text.pooled != pooled:
            raise ConfigError(
                f"backbone: takes a pooled embedding of {pooled} numbers, and the embedder's has {text.pooled}.\n"
                "  Choose a pair that belongs together; from scratch, set backbone.pooled_dim."
            )
        fuser.settle(self.embedder, self.aligner)
        return fuser

    def embed(self, split: Split) -> None:
        """Attach the frozen text embeddings, from the cache where they are known."""
        identity = {
            "what": "embedded",
            "embedder": self.embedder.fingerprint(),
            "captions": [caption.text for caption in split.captions],
        }
        tensors = cached(self.cache, identity, lambda: self.embedder.embed(identity["captions"])._asdict())
        split.attach("embedded", Embedded(**tensors))

    def encode_latents(self, split: Split, device: torch.device) -> None:
        """Attach the frozen latent moments, from the cache where they are known."""
        self.backbone.to(device)
        self.autoencoder.to(device).eval()
        identity = {"what": "latent", **self._pixels(split), "autoencoder": self.autoencoder.fingerprint()}
        fields = self.backbone.encodes
        if "mask" in fields:
            identity["what"] = "latents of images and masks"
            if not split.has_masks:
                raise ConfigError("backbone: paints masks beside images, and some training images have no mask.")

        def compute() -> dict[str, torch.Tensor]:
            with torch.no_grad():
                batches = in_order(split, fields, batch_size=64)
                parts = [self.backbone.encode(to_device(batch, device)).cpu() for batch in batches]
            return {"latent": torch.cat(parts)}

        split.attach("latent", cached(self.cache, identity, compute)["latent"])

    def encode_factors(self, split: Split, fingerprint: str, device: torch.device) -> None:
        """Attach the visual factors that alignment aims at; ``fingerprint`` names the trained encoder."""
        encoder = self.encoder
        assert encoder is not None
        encoder.to(device).eval()

        def compute() -> dict[str, torch.Tensor]:
            with torch.no_grad():
                fields = [field for field in encoder.looks if field != "mask" or split.has_masks]
                batches = in_order(split, fields, batch_size=64)
                pairs = [encoder.targets(to_device(batch, device)) for batch in batches]
            return {name: torch.cat([getattr(pair, name).cpu() for pair in pairs]) for name in Factors._fields}

        tensors = cached(self.cache, {"what": "target", **self._pixels(split), "encoder": fingerprint}, compute)
        split.attach("target", Factors(**tensors))

    def _pixels(self, split: Split) -> dict[str, Any]:
        return {"data": self.data.fingerprint, "image_size": self.image_size, "keys": split.keys}
