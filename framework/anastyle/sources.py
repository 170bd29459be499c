"""Where images and captions come from: datasets as their publishers ship them, and what writes captions for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypedDict

if TYPE_CHECKING:
    from PIL.Image import Image

    from anastyle.records import Caption
    from anastyle.weights import Checkpoint


class Record(NamedTuple):
    """One image of a dataset on its way into the shards."""

    key: str
    image: Image  # RGB
    mask: Image | None  # L, 0 or 255, same size
    caption: Caption
    label: str = ""
    group: str = ""  # what must stay on one side of the split
    split: str = ""  # "train", "validation", "test", or empty: to be drawn by group
    factors: dict[str, str] = {}  # where they are known


class Link(TypedDict):
    """How a style factor follows an anatomy factor in training images."""

    follows: str  # the anatomy factor
    values: dict[str, str]  # anatomy value -> the style value that follows it


class Dataset(ABC):
    """A set of images as its publisher ships it. ``(config)``, read-only."""

    @dataclass
    class Config:
        """Where the set lies and which part of it is wanted."""

    factors: ClassVar[dict[str, tuple[str, ...]]] = {}  # where known: factor -> values
    anatomy_factors: ClassVar[tuple[str, ...]] = ()
    links: ClassVar[dict[str, str]] = {}  # style factor -> the anatomy factor it can be made to follow in training
    draws_validation: ClassVar[bool] = True  # is a share of training set apart? Not where the set sees to that itself
    obtain: ClassVar[str] = ""  # who gives it and what to unpack, in a sentence
    audited: ClassVar[bool] = True  # are near-duplicates looked for? Not among images that are drawn

    def __init__(self, config: Any) -> None:
        self.config = config

    def missing(self) -> str:
        """Say what of the source is not there and how to get it, opening no image; nothing, if all is there."""
        return ""

    def drawn_links(self) -> dict[str, Link]:
        """Return the link of each style factor that follows anatomy in these training images; mostly none does."""
        return {}

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield every record; raise ``DataError`` with all problems of one kind at once."""


class Captioned(NamedTuple):
    """What a captioner says of one record: a caption, or why there is none."""

    caption: Caption | None
    sources: dict[str, str] = {}  # field of the caption -> where its words come from
    reason: str = ""  # why the record has no caption
    notes: tuple[str, ...] = ()  # what was done to the caption ("cut to 200 words"); they are counted


class Captioner(ABC):
    """Writes captions for the records of a prepared set. ``(config)``"""

    @dataclass
    class Config:
        """The person's choices."""

    version: ClassVar[int] = 1  # raised when the same options come to give other words
    batch_size: int = 16  # records per call of ``caption``

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def checkpoints(cls, config: Any) -> list[Checkpoint]:
        """Name the pretrained weights a config asks for."""
        return []

    def identity(self) -> str:
        """Name what beside the options decides the words: the contents of files, the weights."""
        return ""

    def fit(self, records: Callable[[], Iterator[Record]], keys: list[str]) -> dict[str, Any]:
        """Learn from the training records and return what is to be remembered, as plain JSON; most learn nothing.

        Arguments:
            keys: of every record of the set, of all its splits.
        """
        return {}

    def restore(self, fitted: dict[str, Any]) -> None:
        """Take back what ``fit`` returned."""
        del fitted

    @abstractmethod
    def caption(self, records: list[Record]) -> list[Captioned]:
        """Return one answer per record, in their order; what a record gets hangs on no other record."""

    def attributes(self, record: Record) -> dict[str, dict[str, str]]:
        """Return what it sees in a record, ``{"anatomy": {"size": "small", ...}, "style": {...}}``.

        Two images that show the same get the same words. Most captioners tell nothing.
        """
        return {}
