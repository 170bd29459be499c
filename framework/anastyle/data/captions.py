"""Caption tables: what ``anastyle caption`` wrote of a prepared set, beside its untouched shards.

``SET/captions/<name>.jsonl`` opens with a header (captioner, options, what it was fitted to) and has a line for every
record: its caption by field with the source of each, or the reason why there is none.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anastyle.errors import DataError, MissingError, did_you_mean, listing
from anastyle.records import Caption
from anastyle.registry import CAPTIONERS

BUILT_IN = ("attributes", "class_label")  # what ``data.captions`` means without a table
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
FOLDER = "captions"


@dataclass(frozen=True)
class CaptionTable:
    """A finished table."""

    path: Path
    header: dict[str, Any]
    captions: dict[str, Caption]  # by key
    rejected: dict[str, str] = field(default_factory=dict)  # key -> why it has no caption

    @property
    def digest(self) -> str:
        """A hash of every caption: what a training that read them depends on."""
        text = json.dumps(sorted(self.captions.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def refuse_gaps(self, keys: list[str]) -> None:
        """Raise DataError if any of these records has no caption here."""
        gaps = [f"{key}: {self.rejected.get(key, 'no line')}" for key in keys if key not in self.captions]
        if gaps:
            raise DataError(
                f"{self.path}: {len(gaps)} of {len(keys)} records have no caption. Take theirs from another table:\n"
                f"  the same `anastyle caption` line with instead=TABLE (template, say)\n{listing(gaps, shown=2)}"
            )


def place(root: Path, name: str) -> Path:
    """Return where a table of this name lies, or would."""
    return root / FOLDER / f"{name}.jsonl"


def partial(path: Path) -> Path:
    """Return what a table is called until it is finished."""
    return path.with_name(f"{path.name}.partial")


def absent(root: Path, name: str) -> str:
    """Say that a set has no finished table of this name and how to write it, or nothing if there is one."""
    path = place(root, name)
    if path.is_file():
        return ""
    tables = [file.stem for file in sorted(path.parent.glob("*.jsonl"))]
    command = f"anastyle caption {root} {name if name in CAPTIONERS.names() else f'CAPTIONER name={name}'}"
    if partial(path).is_file():
        return f"data.captions={name}: the table is not finished. Continue with the line that began it: {command} ..."
    near = did_you_mean(name, [*BUILT_IN, *tables, *CAPTIONERS.names()])
    known = ", ".join([*BUILT_IN, *tables])
    return f"data.captions={name}: {root} has no such table.{near} Write it: {command}\n  there are: {known}"


def read_table(root: Path, name: str, fingerprint: str) -> CaptionTable:
    """Read a set's table.

    Raises:
        MissingError: there is none, or it is not finished.
        DataError: it is damaged, or was written of other records than those of ``fingerprint``.
    """
    if problem := absent(root, name):
        raise MissingError(problem)
    path = place(root, name)
    lines = read_lines(path)
    header = next(lines, {})
    if header.get("set") != fingerprint:
        raise DataError(
            f"{path}: was written of other records than {root} holds. Write it anew: anastyle caption --fresh"
        )
    captions: dict[str, Caption] = {}
    rejected: dict[str, str] = {}
    for line in lines:
        if "text" in line:
            captions[line["key"]] = caption_of(line)
        else:
            rejected[line["key"]] = line.get("rejected", "")
    return CaptionTable(path, header, captions, rejected)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a finished table; its first is the header.

    Raises:
        DataError: a line is no such object.
    """
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text)
                assert isinstance(line, dict)
                assert number == 1 or isinstance(line["key"], str)
            except (ValueError, KeyError, AssertionError):
                way_out = "Delete it and write it again: anastyle caption"
                raise DataError(f"{path}:{number}: damaged. {way_out}") from None
            yield line


def caption_of(line: dict[str, Any]) -> Caption:
    """Return the caption of a table's line."""
    return Caption(*(str(line.get(name, "")) for name in Caption._fields))
