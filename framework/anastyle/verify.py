"""What ``anastyle verify`` does: hash again all that was written with its hash, and name what has changed.

A run stands for the stages it ended with and the prepared set it read; a study for its runs; the folder of studies for
everything in its store, its cache, its prepared sets and the checkpoints of trainings under way. A prepared set and an
export can be named too.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from anastyle.checkpoint import SEAL, verify
from anastyle.data.shards import MANIFEST, Manifest, fingerprint_of
from anastyle.errors import PROBLEMS, ConfigError, DataError, MissingError
from anastyle.files import changed
from anastyle.jsonlines import read_json
from anastyle.outbox import Outbox

KINDS = {"sealed": "sealed folders", "set": "prepared sets", "entry": "cached encodings"}


class Piece(NamedTuple):
    """One thing with a hash: a sealed folder, a prepared set or an entry of the cache."""

    kind: str
    path: Path
    fingerprint: str = ""  # the beginning of a set's, where a run says which it read


def look(places: Sequence[Path], say: Callable[[str], None]) -> int:
    """Verify everything in some places, say what is wrong and how much was looked at; returns the exit code.

    Raises:
        MissingError: there is no such place.
        ConfigError: there is nothing in it that could be verified.
    """
    pieces = dict.fromkeys(piece for place in places for piece in pieces_of(place))
    notes = [note for place in places for note in unfinished(place)]
    problems = [problem for piece in pieces for problem in problems_of(piece)]
    for problem in [*notes, *problems]:
        say(problem)
    counted = Counter(piece.kind for piece in pieces)
    counts = ", ".join(f"{name}: {counted[kind]}" for kind, name in KINDS.items() if counted[kind])
    say(f"hashed again: {counts or 'nothing'}; {len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'}")
    if problems:
        say("Delete what is damaged: the command that made it makes it anew.")
    return PROBLEMS if problems else 0


def pieces_of(place: Path) -> list[Piece]:
    """Return what there is to verify in a place."""
    if not place.is_dir():
        raise MissingError(f"{place}: no such folder. Name a run, a study, or the folder of studies.")
    if (place / SEAL).exists():
        return [Piece("sealed", place)]
    if (place / MANIFEST).exists():
        return [Piece("set", place)]
    if (place / "store").is_dir():
        return list(_of_output(place))
    runs = runs_of(place)
    if not runs:
        raise ConfigError(f"{place}: holds nothing to verify. Name a run, a study, or the folder of studies.")
    return [piece for run in runs for piece in _of_run(run)]


def runs_of(place: Path) -> list[Path]:
    """Return a run's folder, or those of a study's runs."""
    return sorted(file.parent for pattern in ("config.yaml", "*/seed-*/config.yaml") for file in place.glob(pattern))


def unfinished(place: Path) -> list[str]:
    """Name the runs that do not yet say which stages are theirs."""
    runs = [] if (place / "store").is_dir() else runs_of(place)
    return [f"{run}: not finished, its stages are not looked at; verify {run.parents[2]} for all there is"
            for run in runs if not read_json(run / "status.json").get("stages")]  # fmt: skip


def problems_of(piece: Piece) -> list[str]:
    """Hash one piece anew and return what is wrong with it."""
    if piece.kind == "sealed":
        return verify(piece.path) if piece.path.is_dir() else [f"{piece.path}: missing"]
    return _of_entry(piece.path) if piece.kind == "entry" else _of_set(piece)


def _of_output(output: Path) -> Iterator[Piece]:
    for folder in sorted(output.glob("store/*/*/")):
        if folder.name.startswith("."):
            continue
        if folder.suffix == ".work":
            yield from (Piece("sealed", checkpoint) for checkpoint in sorted(folder.glob("checkpoint-*/")))
        else:
            yield Piece("sealed", folder)
    yield from (Piece("set", file.parent) for file in sorted(output.glob(f"data/*/{MANIFEST}")))
    yield from (Piece("entry", card) for card in sorted(output.glob("cache/*.json")))


def _of_run(run: Path) -> Iterator[Piece]:
    stages = read_json(run / "status.json").get("stages") or {}
    store = run.resolve().parents[2] / "store"
    yield from (
        Piece("sealed", store / Path(stage).name / Path(fingerprint).name) for stage, fingerprint in stages.items()
    )
    read = Outbox(run).read().get("dataset")
    if read:
        there = Path(read["source"])  # or beside the run, if both were moved
        moved = run.resolve().parents[2] / "data" / there.name
        yield Piece("set", there if there.is_dir() else moved, read["digest"])


def _of_entry(card: Path) -> list[str]:
    problem = changed(card.with_suffix(".safetensors"), read_json(card).get("sha256", ""))
    return [problem] if problem else []


def _of_set(piece: Piece) -> list[str]:
    try:
        manifest = Manifest.read(piece.path)
    except DataError as error:
        return [str(error).splitlines()[0]]
    found = (changed(piece.path / shard.file, shard.sha256, shard.bytes) for shard in manifest.shards)
    problems = [problem for problem in found if problem]
    if fingerprint_of(manifest.shards) != manifest.fingerprint:
        problems.append(f"{piece.path / MANIFEST}: its fingerprint is not that of its shards")
    if not manifest.fingerprint.startswith(piece.fingerprint):
        problems.append(f"{piece.path}: holds another set than the run read")
    return problems
