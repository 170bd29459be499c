"""Kills a whole study at random moments, again and again, and compares its end with that of one nobody disturbed.

    OMP_NUM_THREADS=1 python tests/faults/kills.py --kills 200

Every second kill strikes at a random time, the others before or after a random call that changes the disk, so that
checkpoints are met half written, half renamed and half removed. Each process is a fork of this one: its libraries are
awake, and what is killed is work rather than imports. After each kill everything under a final name must be whole;
when a study has come to its end, all its files must be those of the undisturbed one, byte for byte, but for clocks.
"""

import argparse
import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "ANASTYLE_TRACKING": "off"}

from forks import Child, after, wake, write_awake

from anastyle import checkpoint, work
from anastyle.checkpoint import SEAL, load_tensors, verify
from anastyle.cli import main
from anastyle.evaluation import measure
from anastyle.evaluation import study as study_end

SMOKE = Path(__file__).parents[2] / "experiments" / "smoke.yaml"
OFTEN = [f"stages.{stage}.checkpoint_every=2" for stage in ("disentangle", "align", "diffuse")]
TEXT = {".json", ".jsonl", ".md", ".csv", ".tex", ".html", ".yaml", ".txt"}
OWN = {"server", "key", "began", "ended"}  # of one run of a program: its clock, its name for MLflow


def study(child: Child, words: Sequence[str], awake: Path | None = None) -> Callable[[], int]:
    """Return the job of running a study, ``anastyle run WORDS``, in which nothing measures how long anything took."""

    def job() -> int:
        for owner, name, title in (
            (work.Work, "train", "training"), (work.Work, "generate", "generating"), (work, "measure", "measuring"),
            (checkpoint, "save_checkpoint", "saving a checkpoint"), (work.Work, "finish", "storing a stage"),
            (checkpoint, "remove_folder", "removing checkpoints"), (work, "remove_folder", "removing checkpoints"),
            (study_end, "write_tables", "writing the table"), (study_end, "write_report", "writing the report"),
        ):  # fmt: skip
            child.noting(owner, name, title)
        cost = work.cost
        work.cost = lambda parts, embedded, settings, seconds, device: cost(parts, embedded, settings, 1.0, device)
        measure.training_seconds = lambda node: 60.0
        code = main(["run", *words])
        if awake is not None:
            write_awake(awake)
        return code

    return job


@dataclass
class Record:
    """What was done to studies, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)  # by what the process was at
    studies: int = 0
    broken: list[str] = field(default_factory=list)  # what did not load after a kill
    differing: list[str] = field(default_factory=list)  # files that are not those of the undisturbed study
    failures: list[str] = field(default_factory=list)  # processes that ended neither well nor by our hand

    @property
    def clean(self) -> bool:
        """Say whether nothing was lost."""
        return not (self.broken or self.differing or self.failures)

    def lines(self) -> Iterator[str]:
        """Yield what to print."""
        yield f"{self.kills.total()} kills over {self.studies} studies"
        for place, count in self.kills.most_common():
            yield f"  {count:4} {place or 'starting, or between stages'}"
        for title, found in (("states that do not load", self.broken), ("differing files", self.differing),
                             ("other failures", self.failures)):  # fmt: skip
            yield f"{len(found)} {title}"
            yield from (f"  {one}" for one in found)


def kill_studies(kills: int, words: Sequence[str], folder: Path, seed: int, most: int = 40) -> Record:
    """Kill studies until there are so many kills, up to ``most`` in one study; return what came of it."""
    chance, record = random.Random(seed), Record()
    files, seconds, changes = undisturbed(words, folder)
    print(f"undisturbed: {seconds:.0f} s, {changes} changes of the disk, {len(files)} files", flush=True)
    while record.kills.total() < kills and record.clean:
        output = folder / f"study-{record.studies}"
        goal = min(record.kills.total() + most, kills)
        disturbed(words, output, chance, seconds / 12, changes // 25, goal, record)
        record.studies += 1
        record.differing += [f"{output.name}/{name}" for name in differences(contents(output), files)]
        if record.clean:
            shutil.rmtree(output)
        print(f"study {record.studies}: {record.kills.total()} kills so far", flush=True)
    return record


def undisturbed(words: Sequence[str], folder: Path) -> tuple[dict[str, bytes], float, int]:
    """Run the study to its end, twice; return its files, the seconds it took, and its changes of the disk."""
    child, output, log, awake = Child(), folder / "undisturbed", folder / "undisturbed.log", folder / "awake.json"
    job = study(child, [*words, f"output={output}"], awake)
    assert child.run(job, log) == 0, log.read_text()[-2000:]
    wake(awake)
    files = contents(output)
    shutil.rmtree(output)
    began = time.monotonic()
    assert child.run(job, log) == 0, log.read_text()[-2000:]
    assert differences(contents(output), files) == [], "two undisturbed studies differ"
    return files, time.monotonic() - began, child.changes


def disturbed(words: Sequence[str], output: Path, chance: random.Random, seconds: float, changes: int, most: int,
              record: Record) -> None:  # fmt: skip
    """Run the study to its end in spite of kills, until ``most`` are on record.

    Arguments:
        seconds: a process lives before it is killed, in the mean, or
        changes: of the disk that it makes before it dies of one.
    """
    child, log = Child(), output.with_suffix(".log")
    job = study(child, [*words, f"output={output}"])
    for number in range(10 * most):
        strike, fatal = lambda pid: None, 0
        if record.kills.total() < most and number % 2:
            fatal = 1 + int(chance.expovariate(1 / changes))
        elif record.kills.total() < most:
            strike = after(chance.expovariate(1 / seconds))
        code = child.run(job, log, strike, fatal=fatal, before=chance.random() < 0.5)
        if code == 0:
            return
        if code != -signal.SIGKILL:
            record.failures.append(f"{output.name}: ended with {code}; see {log}")
            return
        record.kills[child.at] += 1
        record.broken += [f"after kill {record.kills.total()}: {problem}" for problem in broken(output)]
    record.failures.append(f"{output.name}: never came to its end")


def broken(output: Path) -> list[str]:
    """Name what lies under a final name and is not whole, or does not load."""
    problems = []
    store = output / "store"
    stages = [path for path in store.glob("*/*") if path.is_dir() and not path.name.startswith(".")]
    finished = [path for path in stages if path.suffix != ".work"]
    for folder in [*finished, *store.glob("*/*.work/checkpoint-*")]:
        problems += verify(folder)
        for file in folder.glob("*.safetensors"):
            try:
                load_tensors(file)
            except Exception as error:
                problems.append(f"{file}: {error}")
    return problems


def contents(output: Path) -> dict[str, bytes]:
    """Return what every file of a study says, without clocks and without where it lies."""
    files = [path for path in sorted(output.rglob("*")) if path.is_file()]
    return {path.relative_to(output).as_posix(): _said(path, output) for path in files if _counts(path)}


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Name the files that two studies do not share."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _counts(path: Path) -> bool:
    """Leave out locks, what was hashed when, seals (they hash the times in a log) and small files half written."""
    stray = path.name.startswith(".tmp-") and "store" not in path.parts
    timed = {".locks", "hashed"} & set(path.parts) or path.suffix == ".lock" or path.name == SEAL
    return not (timed or stray)


def _said(path: Path, output: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in content.splitlines()]
        kept = [{k: v for k, v in line.items() if k != "time" and not k.startswith("perf/")} for line in lines]
        return json.dumps(kept).encode()
    if path.suffix == ".safetensors":  # its writer has no order for the words beside the tensors
        size = 8 + struct.unpack("<q", content[:8])[0]
        return json.dumps(json.loads(content[8:size]), sort_keys=True).encode() + content[size:]
    if path.name in ("mlflow.json", "outbox.json", "status.json"):  # a status is in the order in which it came about
        kept = {key: value for key, value in json.loads(content).items() if key not in OWN}
        return json.dumps(kept, sort_keys=True, ensure_ascii=False).replace(str(output), "OUTPUT").encode()
    return content.replace(str(output).encode(), b"OUTPUT") if path.suffix in TEXT else content


def command_line() -> int:
    """Do what the command line asks for; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where studies lie; default: a temporary folder")
    parser.add_argument("words", nargs="*", metavar="a.b=c", help="laid over experiments/smoke.yaml")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    record = kill_studies(args.kills, [str(SMOKE), *OFTEN, *args.words], folder, args.seed)
    print("\n".join(record.lines()))
    print(f"{(time.monotonic() - began) / 60:.0f} minutes; {folder}")
    return 0 if record.clean else 1


if __name__ == "__main__":
    sys.exit(command_line())
