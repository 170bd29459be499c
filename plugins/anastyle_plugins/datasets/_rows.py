"""What the datasets that read files share before any image is opened: rows, their faults, tables, splits."""

import csv
import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from anastyle import DataError
from anastyle.data.prepare import draw_groups
from anastyle.errors import listing

NAMES_SHOWN = 10  # of the files with one and the same fault
LONG = 250  # words of a caption; no embedder here reads more


@dataclass
class Row:
    """One image and what is known of it."""

    key: str
    image: Path
    masks: list[Path] = field(default_factory=list)
    label: str = ""
    text: str = ""
    anatomy: str = ""
    style: str = ""
    group: str = ""
    split: str = ""
    slice: int | None = None  # of a volume


class Problems:
    """Faults by kind, so that a person reads all of them at once."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, name: str) -> None:
        self.names[kind].append(name)

    def refuse(self, source: Path) -> None:
        """Raise what was gathered, if anything."""
        if not self.names:
            return
        lines = []
        for kind, names in self.names.items():
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            lines.append(f"{kind}: {', '.join(names[:NAMES_SHOWN])}{more}")
        count = sum(map(len, self.names.values()))
        raise DataError(f"{source}: {count} problems; mend these files or take them out.\n{listing(lines)}")


def check_rows(rows: list[Row], problems: Problems, notes: Counter[str]) -> None:
    """Note what is wrong before a file is opened: words, labels, names."""
    labelled = any(row.label for row in rows)
    for row in rows:
        if not row.text:
            problems.add("no caption", row.key)
        elif any(unicodedata.category(letter) == "Cc" for letter in row.text):
            problems.add("control characters in the caption", row.key)
        elif "\N{REPLACEMENT CHARACTER}" in row.text:
            problems.add("a caption that is not UTF-8", row.key)
        notes["captions that no embedder reads to the end"] += int(len(row.text.split()) > LONG)
        if labelled and not row.label:
            problems.add("no label", row.key)
    for key, count in Counter(row.key for row in rows).items():
        if count > 1:
            problems.add("an id that comes more than once", key)


def keep_given_splits(rows: list[Row], problems: Problems) -> None:
    """Check the splits that a table gives."""
    for row in rows:
        if row.split not in ("train", "validation", "test"):
            problems.add("a split other than train, validation or test", row.key)
    trained = {row.label for row in rows if row.split == "train"}
    if trained:
        for part in ("validation", "test"):
            for label in sorted({row.label for row in rows if row.split == part} - trained):
                problems.add(f"a class in {part} alone", label)


def draw_part(part: str, rows: list[Row], groups: dict[str, str], share: float, seed: int) -> list[str]:
    """Move a share of every label's rows from training to another part; return the labels too small for that.

    Arguments:
        groups: of each key.
        share: of all the label's rows, those in other parts counted.
    """
    labels = {groups[row.key]: row.label for row in rows}
    taken: set[str] = set()
    for label in sorted(set(labels.values())):
        own = [row for row in rows if labels[groups[row.key]] == label]
        sizes = Counter(groups[row.key] for row in own if row.split == "train")
        taken |= draw_groups(sizes, share * len(own), seed)
    for row in rows:
        if groups[row.key] in taken:
            row.split = part
    return sorted({row.label for row in rows} - {row.label for row in rows if row.split == part})


def joined_groups(rows: list[Row], twins: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """Return the group of each key; groups that hold byte-identical files, or twins, are joined into one."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            group = parent[group]
        return group

    first: dict[bytes, str] = {}
    own = {row.key: row.group or row.key for row in rows}
    for row in rows:
        group = root(own[row.key])
        if row.slice is None and row.image.is_file():
            twin = first.setdefault(hashlib.sha256(row.image.read_bytes()).digest(), group)
            parent[group] = root(twin)
    for one, other in twins:
        parent[root(own[other])] = root(own[one])
    return {key: root(group) for key, group in own.items()}


def read_table(path: Path, required: Iterable[str] = ()) -> list[dict[str, str]]:
    """Return the rows of a CSV (or of a table with tabs), values stripped and on one line.

    Raises:
        DataError: it is not a UTF-8 CSV, lacks a required column, or a row has more or fewer values than columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            tabs = "\t" in file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter="\t" if tabs else ",")
            lines = list(reader)
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8. Save it as UTF-8 CSV.") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV ({error}).") from error
    columns = [name.strip() for name in reader.fieldnames or []]
    if lacking := [f"'{name}'" for name in required if name not in columns]:
        raise DataError(f"{path}: no column {', '.join(lacking)}, only {', '.join(columns) or 'an empty file'}.")
    ragged = [f"line {n}" for n, line in enumerate(lines, start=2) if None in line or None in line.values()]
    if ragged:
        raise DataError(f"{path}: rows that do not fit the columns; quote values with commas.\n{listing(ragged)}")
    return [{name.strip(): " ".join(value.split()) for name, value in line.items()} for line in lines]


def by_id(table: list[dict[str, str]], column: str, problems: Problems) -> dict[str, dict[str, str]]:
    """Return a table's rows by their id; an id that comes twice is a fault."""
    for name, count in Counter(line[column] for line in table).items():
        if count > 1:
            problems.add("an id that comes more than once in the table", name)
    return {line[column]: line for line in table}


def key_of(name: str | Path) -> str:
    """Return a name as a shard key: letters, digits, '_' and '-'; a long one keeps its start and a hash."""
    text = name.as_posix() if isinstance(name, Path) else name
    key = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_") or "image"
    return key if len(key) <= 80 else f"{key[:67]}-{hashlib.sha1(text.encode()).hexdigest()[:12]}"
