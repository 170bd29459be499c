"""The four training stages: a module each, over the parts it trains."""

from abc import abstractmethod

import torch
from torch import nn

from anastyle.interfaces import Aligner, Autoencoder, Backbone, Batch, Encoder, Fuser, Keep, Losses
from anastyle.stages.settings import DiffuseSettings


class Stage(nn.Module):
    """A phase of training."""

    name: str
    fields: tuple[str, ...]  # what of a batch it reads

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> Losses:
        """Return the named terms of one batch."""


class Autoencode(Stage):
    """Trains the latent space."""

    name, fields = "autoencode", ("image",)

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, batch: Batch, step: int) -> Losses:
        """Return the autoencoder's terms."""
        return self.autoencoder.losses(batch)


class Disentangle(Stage):
    """Trains the visual encoder: what the words should come to mean."""

    name, fields = "disentangle", ("image", "mask")

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Batch, step: int) -> Losses:
        """Return the encoder's terms (Eq. 1)."""
        return self.encoder.losses(batch)


class Align(Stage):
    """Teaches the aligner to read the encoder's factors off captions."""

    name, fields = "align", ("embedded", "target")

    def __init__(self, aligner: Aligner) -> None:
        super().__init__()
        self.aligner = aligner

    def forward(self, batch: Batch, step: int) -> Losses:
        """Return the alignment terms (Eq. 2)."""
        assert batch.embedded is not None
        assert batch.target is not None
        return self.aligner.losses(batch.embedded, batch.target)


class Diffuse(Stage):
    """Trains fuser and backbone (and whatever of the aligner is still trainable) to paint from captions."""

    name = "diffuse"

    def __init__(self, aligner: Aligner, fuser: Fuser, backbone: Backbone, settings: DiffuseSettings) -> None:
        super().__init__()
        self.aligner, self.fuser, self.backbone = aligner, fuser, backbone
        self.settings = settings
        self.fields = ("embedded", *backbone.reads)

    def train(self, mode: bool = True) -> "Diffuse":
        """Set the mode; a frozen aligner stays as it will be when sampling."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.aligner.parameters()):
            self.aligner.eval()
        return self

    def forward(self, batch: Batch, step: int) -> Losses:
        """Return the denoising terms; factors are dropped apart and together, so that guidance means something."""
        assert batch.embedded is not None
        condition = self.fuser(self.aligner(batch.embedded), self.keep(len(batch.keys), batch.embedded.pooled.device))
        batch.step = step
        return self.backbone.losses(batch, condition)

    def keep(self, size: int, device: torch.device) -> Keep:
        """Draw which factors of each sample are shown."""
        chosen = self.settings
        draw = torch.rand(size, device=device)
        neither = draw < chosen.drop_both
        no_anatomy = neither | ((draw >= chosen.drop_both) & (draw < chosen.drop_both + chosen.drop_anatomy))
        no_style = neither | (draw > 1 - chosen.drop_style)
        return Keep(anatomy=~no_anatomy, style=~no_style)
