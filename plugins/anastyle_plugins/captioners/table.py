"""Captions someone has: a CSV (UTF-8) of ``key`` (or ``id``), ``text`` and, if known, ``anatomy`` and ``style``.

Whoever has just the two fields leaves ``text`` out: it is made of them. All that does not fit is reported at once.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anastyle import CAPTIONERS, Caption, Captioned, Captioner, ConfigError, DataError, MissingError, Record
from anastyle.errors import did_you_mean, listing
from anastyle.files import sha256_of

FIELDS = ("text", "anatomy", "style")
NAMES = 5  # of the keys with one and the same fault
FIELD_LIMIT = 1 << 24  # letters in one value of the CSV


@CAPTIONERS.register
class Table(Captioner):
    """Reads captions from a CSV."""

    batch_size = 256

    @dataclass
    class Config(Captioner.Config):
        """Which file, and what to do with what does not fit."""

        source: str = ""
        """The CSV."""
        max_words: int = 200
        """Longer texts are cut here, and counted; each field likewise."""
        missing: Literal["error", "reject"] = "error"
        """What becomes of a record that the CSV says nothing of."""
        unknown: Literal["error", "ignore"] = "error"
        """What becomes of a row whose key the set does not have."""

        def __post_init__(self) -> None:
            if not self.source:
                raise ConfigError("source: name the CSV that holds the captions, source=captions.csv.")
            if self.max_words < 1:
                raise ConfigError(f"max_words={self.max_words}: must be at least 1.")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.path = Path(config.source).expanduser()
        if not self.path.is_file():
            raise MissingError(f"caption.source={config.source}: there is no such file.")
        self.rows = read_captions(self.path)

    def identity(self) -> str:
        """Return a hash of the CSV."""
        return sha256_of(self.path)

    def fit(self, records: Callable[[], Iterator[Record]], keys: list[str]) -> dict[str, Any]:
        """Check that the CSV and the set name the same records; nothing is learned."""
        problems = []
        unknown = sorted(set(self.rows) - set(keys))
        if unknown and self.config.unknown == "error":
            near = did_you_mean(unknown[0], keys)
            problems.append(f"{len(unknown)} keys that the set does not have (unknown=ignore): {_few(unknown)}.{near}")
        missing = sorted(set(keys) - set(self.rows))
        if missing and self.config.missing == "error":
            problems.append(f"{len(missing)} records without a row (missing=reject): {_few(missing)}")
        if problems:
            raise DataError(f"{self.path}: does not fit the set.\n{listing(problems)}")
        return {}

    def caption(self, records: list[Record]) -> list[Captioned]:
        """Return the rows of these records."""
        return [self._one(record) for record in records]

    def _one(self, record: Record) -> Captioned:
        row = self.rows.get(record.key)
        if row is None:
            return Captioned(None, reason="no row in the CSV")
        text = row.get("text") or ". ".join(part for part in (row.get("anatomy"), row.get("style")) if part)
        cut = {"text": text, **{name: row.get(name, "") for name in FIELDS[1:]}}
        limit = self.config.max_words
        long = any(len(words.split()) > limit for words in cut.values())
        cut = {name: " ".join(words.split()[:limit]) for name, words in cut.items()}
        sources = {name: f"table: {self.path.name}" for name, words in cut.items() if words}
        notes = (f"cut to {limit} words",) if long else ()
        return Captioned(Caption(**cut, label=record.label), {**sources, "label": "dataset"}, notes=notes)


def read_captions(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a CSV of captions by key.

    Raises:
        DataError: it is not UTF-8 or not a CSV, lacks a column, or rows are empty, broken or there twice; all at once.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"{path}: not UTF-8 (line {line}). Save it as UTF-8 CSV.") from None
    csv.field_size_limit(FIELD_LIMIT)
    try:
        reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV ({error}). Quote values that hold commas or quotes.") from None
    key = "key" if "key" in columns else "id"
    if key not in columns or not {"text", "anatomy"} & set(columns):
        raise DataError(
            f"{path}: it has {', '.join(columns) or 'no columns'}; it needs key (or id) and text or anatomy."
        )
    problems = [*_faults(rows, key), *_twice(rows, key)]
    if problems:
        raise DataError(f"{path}: mend these rows.\n{listing(problems)}")
    return {row[key].strip(): {name: " ".join((row.get(name) or "").split()) for name in FIELDS} for row in rows}


def _faults(rows: list[dict[str, Any]], key: str) -> Iterator[str]:
    """Name rows that cannot be read, by kind of fault."""
    kinds: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=1):
        words = " ".join(row.get(name) or "" for name in FIELDS)
        name = (row.get(key) or "").strip() or f"row {number}"
        if None in row or None in row.values():
            kinds.setdefault("more or fewer values than columns", []).append(name)
        elif not (row.get(key) or "").strip():
            kinds.setdefault("no key", []).append(name)
        elif not words.strip():
            kinds.setdefault("no words", []).append(name)
        elif any((ord(letter) < 32 and not letter.isspace()) or ord(letter) == 127 for letter in words):
            kinds.setdefault("control characters", []).append(name)
    return (f"{kind}: {len(names)}, {_few(names)}" for kind, names in kinds.items())


def _twice(rows: list[dict[str, Any]], key: str) -> Iterator[str]:
    counts = Counter((row.get(key) or "").strip() for row in rows)
    twice = [name for name, count in counts.items() if count > 1 and name]
    if twice:
        yield f"a key more than once: {len(twice)}, {_few(twice)}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMES]) + (" ..." if len(names) > NAMES else "")
