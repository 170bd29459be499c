"""Records that need no tensor: what a caption holds."""

from typing import NamedTuple


class Caption(NamedTuple):
    """A description of an image, whole and, where known, by field."""

    text: str
    anatomy: str = ""
    style: str = ""
    label: str = ""
