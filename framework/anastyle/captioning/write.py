"""What ``anastyle caption`` does: a captioner's words for every record of a prepared set, as one more table beside it.

The table grows as ``<name>.jsonl.partial``, so that a stopped command continues where it was, and takes its name when
it is whole. Records that the captioner rejects stay in the table with the reason.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from anastyle.config import plain, section
from anastyle.data.captions import BUILT_IN, NAME, caption_of, partial, place, read_lines, read_table
from anastyle.data.split import PreparedSet
from anastyle.data.store import read_entries, records_of
from anastyle.errors import ConfigError, DataError, listing
from anastyle.files import write_whole
from anastyle.jsonlines import JsonLines
from anastyle.records import Caption
from anastyle.registry import CAPTIONERS
from anastyle.sources import Captioned, Captioner, Record

FORMAT = 1

Line = dict[str, Any]


@dataclass(frozen=True)
class Written:
    """A finished table, in numbers."""

    path: Path
    captions: int
    rejected: Counter[str]  # reason -> records without a caption
    notes: Counter[str]  # what was done to captions -> to how many


def caption_set(
    root: str | Path, captioner: str, options: Mapping[str, Any], *, name: str = "", instead: str = "",
    fresh: bool = False,
) -> Written:  # fmt: skip
    """Write a table of captions, or continue one, or leave it as it is if it is just this.

    Arguments:
        options: of the captioner.
        name: of the table; the captioner's own by default.
        instead: a table (or ``attributes``, the prepared captions) that gives rejected records their caption.
        fresh: replace a table that other options wrote.

    Raises:
        MissingError: the set is not there, or what the captioner needs.
        ConfigError: no such captioner or option, or a name that a table cannot have.
        DataError: the name is taken by a table that other options wrote, or another process is writing it.
    """
    prepared = PreparedSet.open(root)
    cls, config = section(CAPTIONERS, {"name": captioner, **options}, where="caption")
    name = name or captioner
    _refuse_name(name)
    maker: Captioner = cls(config)
    made = {
        "captioner": captioner,
        "version": maker.version,
        "options": plain(config),
        "inputs": maker.identity(),
        "set": prepared.fingerprint,
    }
    path = place(prepared.root, name)
    path.parent.mkdir(exist_ok=True)
    try:
        with FileLock(path.with_name(f".{name}.lock"), timeout=0):
            return _write(prepared, maker, made, path, instead, fresh)
    except Timeout:
        raise DataError(f"{path}: another process is writing it. Wait for it, or choose another: name=...") from None


def _refuse_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"name={name}: a table's name is 1 to 64 letters, digits, '_' or '-'.")
    if name in BUILT_IN:
        raise ConfigError(
            f"name={name}: `data: {{captions: {name}}}` means something without a table.\n"
            f"  Write that in the experiment, or give the table another name: name=my_{name}"
        )


def _write(prepared: PreparedSet, maker: Captioner, made: Line, path: Path, instead: str, fresh: bool) -> Written:
    stamp = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]
    growing = partial(path)
    if fresh:
        growing.unlink(missing_ok=True)
    elif path.is_file():
        _refuse_other(path, next(read_lines(path), {}), made)
        return _finish(prepared, path, path, instead)
    lines = JsonLines(growing)
    lines.truncate()
    stored = [line for line, _ in lines.read()]
    if stored:
        _refuse_other(growing, stored[0], made)
        maker.restore(stored[0]["fitted"])
    else:
        fitted = json.loads(json.dumps(maker.fit(_training(prepared), _keys(prepared))))
        maker.restore(fitted)
        lines.append({"format": FORMAT, **made, "fitted": fitted})
    done = {line["key"] for line in stored[1:]}
    total = sum(shard.count for shard in prepared.manifest.shards)
    left = all_records(prepared, wanted=lambda key: key not in done)
    with tqdm(total=total, initial=len(done), desc=path.stem, unit="image", disable=None) as bar:
        while records := list(islice(left, maker.batch_size)):
            for record, answer in zip(records, maker.caption(records), strict=True):
                lines.append(_line(record, answer, stamp))
            bar.update(len(records))
    return _finish(prepared, growing, path, instead)


def _refuse_other(path: Path, header: Line, made: Line) -> None:
    """Raise DataError if a table was written by something else than what is asked for now."""
    differing = [key for key in made if header.get(key) != made[key] and key != "options"]
    old, new = header.get("options") or {}, made["options"]
    differing += [
        f"{key}={old.get(key)!r}, now {new.get(key)!r}" for key in {**old, **new} if old.get(key) != new.get(key)
    ]
    if differing:
        raise DataError(
            f"{path}: is there, and was written otherwise ({'; '.join(differing[:4])}).\n"
            "  Keep both: name=ANOTHER. Replace it: --fresh."
        )


def _training(prepared: PreparedSet) -> Callable[[], Iterator[Record]]:
    return lambda: all_records(prepared, "train" if "train" in prepared.manifest.splits else None)


def _keys(prepared: PreparedSet) -> list[str]:
    return [entry.key for shard in prepared.manifest.shards for entry in read_entries(prepared.root, shard)]


def all_records(
    prepared: PreparedSet, split: str | None = None, wanted: Callable[[str], bool] = lambda key: True
) -> Iterator[Record]:
    """Yield the records of a split, or of all, whose keys are wanted, in the size they are stored in."""
    shards = [shard for shard in prepared.manifest.shards if split in (None, shard.split)]
    return chain.from_iterable(records_of(prepared.root, shard, wanted) for shard in shards)


def _line(record: Record, answer: Captioned, stamp: str) -> Line:
    caption, reason = answer.caption, answer.reason
    if caption is not None and (fault := _fault(caption)):
        caption, reason = None, fault
    head = {"key": record.key, "split": record.split, "made_by": stamp}
    if caption is None:
        return {**head, "rejected": reason or "no reason given"}
    notes = {"notes": list(answer.notes)} if answer.notes else {}
    return {**head, **caption._asdict(), "sources": answer.sources, **notes}


def _fault(caption: Caption) -> str:
    """Say why nobody could train on a caption, or nothing."""
    if not caption.text.strip():
        return "an empty text"
    if any(ord(letter) < 32 or ord(letter) == 127 for field in caption for letter in field):
        return "control characters in it"
    return ""


def _finish(prepared: PreparedSet, source: Path, path: Path, instead: str) -> Written:
    """Put the table in its place, rejected records filled in if so asked; whole, or not at all."""
    header, *lines = read_lines(source)
    if instead:
        lines = list(_filled(lines, instead, *_other(prepared, path, instead)))
        header = {**header, "instead": instead}
    if instead or source != path:
        text = "".join(json.dumps(line) + "\n" for line in [header, *lines])
        write_whole(path, text.encode(), sync=True)
        partial(path).unlink(missing_ok=True)
    rejected = Counter(line["rejected"] for line in lines if "text" not in line)
    notes = Counter(note for line in lines for note in line.get("notes", ()))
    return Written(path, sum("text" in line for line in lines), rejected, notes)


def _filled(lines: list[Line], instead: str, captions: dict[str, Caption], sources: dict[str, Any]) -> Iterator[Line]:
    for line in lines:
        key = line["key"]
        if "rejected" in line and key in captions:
            given = {name: f"{instead}: {source}" for name, source in sources.get(key, {}).items()}
            line = {**line, **captions[key]._asdict(), "sources": given or {"text": instead}}
        yield line


def _other(prepared: PreparedSet, path: Path, instead: str) -> tuple[dict[str, Caption], dict[str, Any]]:
    """Return the captions that stand in for rejected ones, and where their words come from."""
    if instead == "attributes":
        entries = chain.from_iterable(read_entries(prepared.root, shard) for shard in prepared.manifest.shards)
        return {entry.key: entry.caption for entry in entries}, {}
    if instead == path.stem:
        raise ConfigError(f"instead={instead}: a table cannot stand in for itself. Name another.")
    table = read_table(prepared.root, instead, prepared.fingerprint)
    return table.captions, {line["key"]: line.get("sources", {}) for line in islice(read_lines(table.path), 1, None)}


def report(written: Written, prepared: str) -> str:
    """Return what a person is told at the end."""
    use = f"data: {{root: {prepared}, captions: {written.path.stem}}}"
    lines = [f"{written.path}: {written.captions} captions. Use them: {use}"]
    lines += [f"  {note}: {count}" for note, count in written.notes.most_common()]
    if written.rejected:
        reasons = [f"{count} x {reason}" for reason, count in written.rejected.most_common()]
        lines.append(
            f"  {written.rejected.total()} records have no caption; the same line with instead=template fills them in\n"
            f"{listing(reasons)}"
        )
    return "\n".join(lines)


def shown(path: Path, count: int) -> dict[str, tuple[Caption | None, str]]:
    """Draw some records of a table by the hash of their key: key -> caption, and why it was rejected."""
    lines = {line["key"]: line for line in islice(read_lines(path), 1, None)}
    drawn = sorted(lines, key=lambda key: hashlib.sha1(key.encode()).digest())[:count]
    return {
        key: (caption_of(lines[key]) if "text" in lines[key] else None, lines[key].get("rejected", "")) for key in drawn
    }
