"""Where a segmenter sees lesions in a run's images, and what follows: for sets of which no factors are known."""

from collections.abc import Mapping

from torch import Tensor

from anastyle.evaluation.control.change import changes, look
from anastyle.evaluation.control.faithful import Reader, Words, faithfulness, outlined
from anastyle.evaluation.control.pairs import pair_values
from anastyle.evaluation.control.segmenter import Segmenter
from anastyle.evaluation.judge import at_side
from anastyle.evaluation.reference import Reference, Settings
from anastyle.evaluation.utility.arms import Pool
from anastyle.evaluation.values import Value


class Lesions:
    """A segmenter with what it sees in real test images, computed once for every variant.

    Arguments:
        test: the real test images at the side of ``real``, with their masks.
        reader: a captioner that says whether images show what was asked; None: nobody does.
    """

    def __init__(self, segmenter: Segmenter, test: Pool, real: Reference, reader: Reader | None = None) -> None:
        self.segmenter, self.side, self.reader = segmenter, real.side, reader
        self.skill, count = segmenter.skill(test)
        told = f" (Dice {self.skill:.2f} on {count} real held-out images)" if self.skill is not None else ""
        self.name = segmenter.fingerprint() + told
        self.unit = look(real.against, segmenter)
        self.real = self._words(reader.test.images) if reader else []

    def changes(self, images: Mapping[str, Tensor], settings: Settings) -> dict[str, Value]:
        """Return what exchanged texts change, see ``change``."""
        small = {name: at_side(image, self.side) for name, image in images.items()}
        return changes(small, self.unit, self.segmenter, self.name, settings)

    def faithfulness(self, images: Tensor, decoded: Tensor | None, settings: Settings) -> dict[str, Value]:
        """Return how often images of the first test captions show what these ask for, see ``faithful``."""
        if self.reader is None:
            return {}
        count = len(images)
        told = {"generated": self._words(images), "real": self.real[:count]}
        if decoded is not None:
            told["decoded"] = self._words(decoded)
        reader = f"captioner '{self.reader.name}' at {self.side} px, outlines by {self.name},"
        return faithfulness(told, self.reader.asked[:count], reader, settings)

    def pairs(self, images: Tensor, masks: Tensor, settings: Settings) -> dict[str, Value]:
        """Return how well painted masks lie on the lesions of their images, see ``pairs``."""
        return pair_values(masks, self.segmenter(at_side(images, self.side)), self.skill, self.name, settings)

    def _words(self, images: Tensor) -> list[Words]:
        assert self.reader is not None
        small = at_side(images, self.side)
        return self.reader.words(outlined(small, self.segmenter(small)))
