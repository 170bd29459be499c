"""No room on the disk or in memory, folders that are closed, and two processes that want the same one."""

import errno
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from anastyle import ConfigError
from anastyle.checkpoint import checkpoints, save_tensors, verify
from anastyle.cli import main
from anastyle.errors import AnastyleError, ShortageError
from anastyle.interfaces import Batch
from anastyle.jsonlines import JsonLines
from anastyle.locks import claimed, turn
from anastyle.shortage import memory_explained
from anastyle.trainer import Settings, fit

SMALL = [
    str(Path(__file__).parents[2] / "experiments" / "smoke.yaml"),
    "only=full",
    "data.train=48",
    "data.test=32",
]
CPU = torch.device("cpu")


class Wide(torch.nn.Module):
    """Holds more numbers than a small disk takes."""

    name = "wide"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(32, 32)

    def forward(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        assert batch.image is not None
        return {"fit": (self.body(batch.image) - batch.image).square().mean()}


def train(folder: Path, room: Callable[[int], Any] = lambda step: None, steps: int = 8) -> dict[str, torch.Tensor]:
    """Train ``Wide``; ``room`` is called before each step."""

    def batches(start: int, rank: int, world: int, size: int) -> Iterator[Batch]:
        while True:
            room(start)
            image = torch.randn(4, 32, generator=torch.Generator().manual_seed(start))
            yield Batch(["a", "b", "c", "d"], torch.arange(4), image=image)
            start += 1

    stage = Wide()
    settings = Settings(steps=steps, batch_size=4, checkpoint_every=2, log_every=1, weights={"fit": 1.0})
    fit(stage, batches, settings, folder=folder, seed=0, examples=4)
    return dict(stage.state_dict())


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = [line for line, _ in JsonLines(folder / "metrics.jsonl").read()]
    return [{k: v for k, v in line.items() if k != "time" and "perf/" not in k} for line in lines]


Limit = Callable[[int | None], None]


@pytest.fixture
def limit() -> Iterator[Limit]:
    """Return what makes every file of this process end after so many bytes; None: lets it grow again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if most is None else most, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("line", [True, False], ids=["in the middle of a line", "for the tensors"])
def test_a_disk_that_is_full_for_a_while_costs_a_checkpoint_and_nothing_else(
    tmp_path: Path, limit: Limit, line: bool, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[list[str]] = []

    def room(step: int) -> None:
        if step == 3:
            limit((tmp_path / "tight" / "metrics.jsonl").stat().st_size + 20 if line else 4000)
        if step == 6:  # the checkpoint of step 4 has failed
            limit(None)
            seen.append([path.name for path in tmp_path.joinpath("tight").iterdir() if path.is_dir()])

    weights = train(tmp_path / "tight", room)
    straight = train(tmp_path / "straight")

    assert seen == [["checkpoint-2"]]
    assert verify(tmp_path / "tight" / "checkpoint-8") == []
    assert "no checkpoint at step 4" in caplog.text
    assert " bytes needed, " in caplog.text
    assert all(torch.equal(weights[name], straight[name]) for name in straight)
    assert logged(tmp_path / "tight") == logged(tmp_path / "straight")


def test_a_disk_that_stays_full_ends_the_training_at_the_third_checkpoint_and_it_goes_on_later(
    tmp_path: Path, limit: Limit
) -> None:
    with pytest.raises(AnastyleError, match="cannot be written to, 3 times now"):
        train(tmp_path / "tight", lambda step: limit(300 if step >= 3 else None))
    limit(None)

    assert [path.name for path in checkpoints(tmp_path / "tight")] == ["checkpoint-2"]
    weights, straight = train(tmp_path / "tight"), train(tmp_path / "straight")
    assert all(torch.equal(weights[name], straight[name]) for name in straight)
    assert logged(tmp_path / "tight") == logged(tmp_path / "straight")


def test_tensors_that_find_no_room_are_an_error_of_the_system(tmp_path: Path, limit: Limit) -> None:
    limit(300)
    with pytest.raises(OSError, match="File too large") as caught:
        save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1000)})
    limit(None)

    assert caught.value.errno == errno.EFBIG
    assert not (tmp_path / "x.safetensors").exists()
    with pytest.raises(Exception, match="metadata"):
        save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"a": 1})  # type: ignore[dict-item]


def test_no_room_elsewhere_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "here")

    monkeypatch.setattr("anastyle.run.run_experiment", refuse)

    assert main(["run", *SMALL, f"output={tmp_path}"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: [Errno 28] No space left on device: 'here'",
        "  Make room; the same command continues.",
    ]


def out_of_memory(*arguments: Any, **options: Any) -> None:
    torch.empty(1 << 55, dtype=torch.uint8)


def test_out_of_memory_ends_a_study_with_the_numbers_and_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANASTYLE_TRACKING", "off")
    monkeypatch.setattr("anastyle.work.fit", out_of_memory)

    assert main(["run", *SMALL, f"output={tmp_path}"]) == 5

    lines = capsys.readouterr().err.splitlines()
    told = lines[lines.index(next(line for line in lines if line.startswith("error: "))) :]
    assert "stages.disentangle: out of memory: 36028797018963968 bytes asked for, " in told[0]
    assert "The same 8 images a step" in told[1]
    assert "stages.disentangle.batch_size=4 stages.disentangle.accumulate=2" in told[1]
    assert len(told) <= 5


@pytest.mark.parametrize(
    ("stage", "settings", "advice"),
    [
        ("diffuse", {"batch_size": 12, "accumulate": 2}, "diffuse.batch_size=6 stages.diffuse.accumulate=4"),
        ("diffuse", {"batch_size": 9, "accumulate": 1}, "diffuse.batch_size=3 stages.diffuse.accumulate=3"),
        ("diffuse", {"batch_size": 1, "accumulate": 1}, "gradient_checkpointing=on"),
        ("generate", {"batch_size": 64}, "stages.generate.batch_size=32"),
        ("evaluate", {}, "data.image_size="),
    ],
)
def test_advice_keeps_the_images_of_a_step(stage: str, settings: dict[str, int], advice: str) -> None:
    with pytest.raises(ShortageError) as caught, memory_explained(stage, settings, CPU):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of")

    assert "2.00 GiB asked for, " in str(caught.value)
    assert advice in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4


def test_another_fault_is_not_taken_for_a_shortage() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_explained("diffuse", {}, CPU):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("closed", ["", "cache", "store", "smoke"])
def test_a_folder_that_cannot_be_written_to_is_told_before_any_work(
    tmp_path: Path, closed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / closed
    folder.mkdir(parents=True)
    honest = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and honest(path, mode))

    assert main(["run", *SMALL, f"output={tmp_path / 'runs'}"]) == 3
    assert f"{folder} cannot be written to. Choose another: output=..." in capsys.readouterr().err
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []


@contextmanager
def holder(hold: Callable[[], Any]) -> Iterator[int]:
    """Have another process hold a lock; yield its process id, and kill it in the end."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with hold():
            os.write(write, b"x")
            time.sleep(600)
        os._exit(0)
    os.read(read, 1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_second_process_on_the_same_run_is_refused_and_told_which_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "smoke" / "full" / "seed-42"

    with holder(lambda: claimed(tmp_path, [run])) as pid:
        assert main(["run", *SMALL, f"output={tmp_path}", "--fresh"]) == 2
        error = capsys.readouterr().err
        with claimed(tmp_path, [tmp_path / "smoke" / "naive" / "seed-42"]):
            pass  # another run of the same study
    with claimed(tmp_path, [run]):
        pass  # a lock dies with its process

    assert error == f"error: {run}: process {pid} works here. Wait for it, or choose another name=...\n"
    assert not run.exists()


def test_none_of_several_runs_is_claimed_when_one_is_taken(tmp_path: Path) -> None:
    runs = [tmp_path / "study" / name / "seed-1" for name in ("a", "b")]
    with claimed(tmp_path, runs[1:]):
        with pytest.raises(ConfigError, match="works here"), claimed(tmp_path, runs):
            pass
        with claimed(tmp_path, runs[:1]):
            pass


def test_a_stage_that_another_process_trains_is_waited_for(tmp_path: Path) -> None:
    stage = tmp_path / "store" / "diffuse" / "abc"
    (stage.parent / ".tmp-abc-123").mkdir(parents=True)
    (stage.parent / ".tmp-other-123").mkdir()
    told: list[str] = []

    with holder(lambda: turn(tmp_path, stage.with_name("abc"), print)) as pid:

        def say(text: str) -> None:
            told.append(text)
            os.kill(pid, signal.SIGKILL)

        (stage.parent / ".tmp-abc-456").mkdir()  # what the process that is killed leaves
        with turn(tmp_path, stage, say):
            left = {path.name for path in stage.parent.iterdir()}

    assert told == [f"{stage}: waits for process {pid}, which works on the same"]
    assert left == {".tmp-other-123"}
