"""The segmenter: learns where lesions are, and is the same after it was stored."""

import pytest
import torch

from anastyle import DataError
from anastyle.evaluation.control.segmenter import Segmenter


class Discs:
    """Dark discs on light grey, with their masks."""

    def __init__(self, count: int, seed: int, *, masks: bool = True) -> None:
        rng = torch.Generator().manual_seed(seed)
        axis = torch.linspace(-1, 1, 16)
        centre, radius = torch.rand(count, 2, generator=rng) - 0.5, 0.3 + 0.3 * torch.rand(count, generator=rng)
        away = (axis[None, :, None] - centre[:, :1, None]) ** 2 + (axis[None, None] - centre[:, 1:, None]) ** 2
        self.inside = (away.sqrt() < radius[:, None, None]).float()[:, None]
        noise = 0.1 * torch.randn(count, 3, 16, 16, generator=rng)
        self.images = (0.5 - self.inside + noise).clamp(-1, 1)
        self.labels, self.factors, self.masks = torch.zeros(count, dtype=torch.long), {}, masks

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int, /) -> torch.Tensor:
        return self.images[index]

    def mask(self, index: int, /) -> torch.Tensor | None:
        return self.inside[index] if self.masks else None


def bytes_of(split: Discs) -> torch.Tensor:
    return ((split.images + 1) * 127.5).round().to(torch.uint8)


def test_a_segmenter_finds_lesions_and_is_the_same_when_stored(tmp_path):
    train, test = Discs(48, 0), Discs(24, 1)

    segmenter = Segmenter.train(train, 0, 60, side=16, device="cpu")
    said = segmenter(bytes_of(test))

    assert said.shape == (24, 1, 16, 16)
    dice = 2 * (said & test.inside.bool()).sum() / (said.sum() + test.inside.sum())
    assert dice > 0.9
    segmenter.save(tmp_path / "segmenter.safetensors")
    again = Segmenter.load(tmp_path / "segmenter.safetensors")
    assert again.fingerprint() == segmenter.fingerprint()
    torch.testing.assert_close(again(bytes_of(test)), said)


def test_without_masks_there_is_nothing_to_learn():
    with pytest.raises(DataError, match="some training images have none"):
        Segmenter.train(Discs(8, 0, masks=False), 0, 2, side=16, device="cpu")
