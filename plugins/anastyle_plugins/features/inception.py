"""Inception v3 of the Fréchet inception distance: the network behind published FID and KID numbers.

Features are the 2048 numbers of its last pooling (Heusel et al. 2017). The weights, "pt_inception-2015-12-05", are
carried by the pytorch-fid project as a pickle, which is not read here; write it as safetensors once:

    import torch, safetensors.torch as st
    st.save_file(torch.load("pt_inception-2015-12-05-6726825d.pth", weights_only=True), "model.safetensors")

The original TensorFlow code and torch-fidelity resize as ``legacy_tf`` does; ``antialiased`` follows Parmar et al.
(2022). Pixels become (pixel - 128) / 128, as in the original graph.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from anastyle import FEATURES, DataError
from anastyle.weights import Checkpoint, find, present
from anastyle_plugins.features._inception import Inception as Network
from anastyle_plugins.features._pretrained import Pretrained, foreign, lively

FILES = ("model.safetensors | pt_inception-2015-12-05-6726825d.safetensors",)
MIDDLE = (128 / 255, 128 / 255, 128 / 255)
PICKLES = (".pth", ".pt", ".bin", ".pkl")


@FEATURES.register
class Inception(Pretrained):
    """The last pooling of the FID Inception, (B, 2048)."""

    @dataclass
    class Config(Pretrained.Config):
        """Which weights."""

        path: str = MISSING
        """A safetensors file with pytorch-fid's keys, a folder with model.safetensors, or a hub id."""

    name = "inception"
    colours = (MIDDLE, MIDDLE)
    side = 299

    def __init__(self, config: Config, *, classes: int = 0) -> None:
        super().__init__(config)
        self.network = Network()
        if torch.get_default_device().type != "meta":  # where no weights are wanted
            checkpoint = self.checkpoints(config)[0]
            folder = find(checkpoint)
            fill(self.network, folder / present(folder, checkpoint)[0])
        self.requires_grad_(False).eval()

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the weights that ``path`` points to: a file, a folder or a hub id."""
        path = Path(config.path).expanduser()
        if path.suffix in PICKLES:
            raise DataError(
                f"feature.path: {path}: is a pickle, and weights are read as safetensors only. Write it as such once:\n"
                f'  torch.load("{path.name}", weights_only=True), then safetensors.torch.save_file'
            )
        if path.suffix == ".safetensors":
            return [Checkpoint("feature.path", str(path.absolute().parent), (path.name,))]
        return [Checkpoint("feature.path", config.path, FILES, config.revision)]

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Write random weights in the published layout and return the options that load them; it has but one size."""
        path = folder / "inception"
        path.mkdir(parents=True, exist_ok=True)
        weights = lively(Network()).half().state_dict()
        save_file(weights, path / "model.safetensors")
        return {"path": str(path), "batch_size": 2}

    def look(self, image: Tensor) -> Tensor:
        return self.network(image)


def fill(network: Network, file: Path) -> None:
    """Load a file of weights; those of the classifier, which is not used, are passed over.

    Raises:
        DataError: it holds something else.
    """
    try:
        weights = {name: value.float() for name, value in load_file(file).items() if not name.startswith("fc.")}
        network.load_state_dict(weights)
    except (RuntimeError, SafetensorError) as error:
        raise foreign(file, "FID Inception", str(error).splitlines()[-1].strip()[:200]) from None
