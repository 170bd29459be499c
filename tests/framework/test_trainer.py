"""The training loop: resumes to the bit, survives kills, refuses bad terms. Also run as a program, to be killed."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from anastyle import Batch, ConfigError, DataError, NumericalError
from anastyle.checkpoint import checkpoints, trainable_state
from anastyle.trainer import Settings, fit

STEPS = 12
SETTINGS = {"steps": STEPS, "batch_size": 4, "lr": 0.01, "weights": {"fit": 1.0, "small": 0.5}, "checkpoint_every": 3,
            "log_every": 2, "ema": 0.9, "schedule": "cosine", "warmup": 3}  # fmt: skip


class Toy(nn.Module):
    """Everything that makes a resume hard: dropout, noise, running statistics, a frozen part."""

    name = "toy"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))

    def forward(self, batch, step):
        output = self.body(self.frozen(batch.image) + 0.1 * torch.randn_like(batch.image))
        return {"fit": (output - batch.image).square().mean(), "small": output.abs().mean()}


class Plain(nn.Module):
    """Deterministic, so that ranks can be compared."""

    name = "plain"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, batch, step):
        return {"fit": (self.body(batch.image) - batch.image).square().mean()}


def endless(start, rank, world, size, event=None):
    """Yield batch after batch; all ranks' k-th batches together are the same for as many images."""
    number = start
    while True:
        if event is not None and number == event[0]:
            event[1]()
        data = torch.randn(size * world, 4, generator=torch.Generator().manual_seed(number))[rank * size :][:size]
        yield Batch([f"{number}-{rank}-{i}" for i in range(size)], torch.arange(size), image=data)
        number += 1


def train(folder, stage=None, batches=endless, tracker=None, progress=None, seed=7, **changes):
    stage = stage or Toy()
    settings = Settings(**{**SETTINGS, **changes})
    fit(stage, batches, settings, folder=folder, seed=seed, examples=100, tracker=tracker, progress=progress)
    return trainable_state(stage)


def logged(folder):
    """Return the log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "time" and "perf/" not in name} for line in lines]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def run_child(*words, launcher=(sys.executable,)):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launcher, __file__, *map(str, words)], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A training nobody disturbed: its weights, its log, its folder."""
    folder = tmp_path_factory.mktemp("straight") / "work"
    weights = train(folder)
    return weights, logged(folder), folder


def test_a_training_moves_what_is_trained_and_logs_every_term(straight):
    weights, log, folder = straight

    assert not torch.equal(weights["body.0.weight"], Toy().body[0].weight)
    assert "frozen.weight" not in weights
    assert [line["step"] for line in log] == [1, 2, 4, 6, 8, 10, 12]
    names = {"loss", "loss/fit", "loss/small", "grad_norm", "lr"}
    assert set(log[0]) == {"step"} | {f"train/toy/{name}" for name in names}
    assert log[3]["train/toy/loss"] == pytest.approx(log[3]["train/toy/loss/fit"] + log[3]["train/toy/loss/small"] / 2)
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-12", "checkpoint-9"]


@pytest.mark.parametrize(
    ("how", "code", "newest"),
    [("kill", -signal.SIGKILL, 6), ("term", 143, 8), ("int", 130, 8), ("rename", -signal.SIGKILL, 3)],
)
def test_after_a_stop_the_same_call_ends_in_the_same_bits_and_the_same_log(tmp_path, straight, how, code, newest):
    child = run_child(how, tmp_path)

    assert child.returncode == code, child.stderr
    assert checkpoints(tmp_path)[0].name == f"checkpoint-{newest}"
    weights = train(tmp_path)
    assert equal(weights, straight[0])
    assert logged(tmp_path) == straight[1]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_torn_checkpoint_is_passed_over(tmp_path, straight, damage, caplog):
    def fail():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train(tmp_path, batches=lambda *place: endless(*place, event=(8, fail)))
    file = tmp_path / "checkpoint-6" / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content[:100] if damage == "truncate" else content)

    weights = train(tmp_path)

    assert "skipped checkpoint-6, which is damaged" in caplog.text
    assert "continuing from checkpoint-3" in caplog.text
    assert equal(weights, straight[0])
    assert logged(tmp_path) == straight[1]


def test_a_finished_training_is_finished_again_at_once(tmp_path, straight):
    def refuse(*place):
        raise AssertionError("no batch is needed")

    train(tmp_path)

    assert equal(train(tmp_path, batches=refuse), straight[0])
    assert logged(tmp_path) == straight[1]


def test_a_full_disk_costs_a_checkpoint_not_the_training(tmp_path, straight, monkeypatch, caplog):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("anastyle.checkpoint.save_file", full)
        with pytest.raises(Exception, match="cannot be written to, 3 times now"):
            train(tmp_path / "never")
        weights = train(tmp_path / "late", checkpoint_every=6)

    assert caplog.text.count("No space left on device") == 4
    assert equal(weights, straight[0])
    assert checkpoints(tmp_path / "late") == []


def test_another_training_s_folder_is_refused(tmp_path):
    train(tmp_path, steps=2)

    with pytest.raises(ConfigError, match=r"(?s)checkpoint-2: is of another training.*lr: 0\.01 there, 0\.02 here"):
        train(tmp_path, steps=2, lr=0.02)


def test_the_average_of_the_weights_is_what_a_stage_ends_with(tmp_path):
    last = train(tmp_path / "last", ema=None)
    mean = train(tmp_path / "mean")

    assert not torch.equal(last["body.0.weight"], mean["body.0.weight"])
    assert torch.equal(last["body.1.running_mean"], mean["body.1.running_mean"])


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    def doubled(start, rank, world, size):
        stream = endless(2 * start, rank, world, size // 2)
        for one, other in zip(stream, stream, strict=False):
            yield Batch(one.keys + other.keys, torch.arange(8), image=torch.cat([one.image, other.image]))

    options = {"weights": {"fit": 1.0}, "ema": None, "checkpoint_every": 5}
    small = train(tmp_path / "small", Plain(), accumulate=2, **options)
    large = train(tmp_path / "large", Plain(), doubled, batch_size=8, **options)

    assert all(torch.allclose(small[name], large[name], atol=1e-6) for name in large)


def test_bfloat16_trains_and_leaves_float32_weights(tmp_path):
    weights = train(tmp_path, precision="bf16")

    assert {tensor.dtype for name, tensor in weights.items() if "num" not in name} == {torch.float32}
    assert not torch.equal(weights["body.0.weight"], Toy().body[0].weight)
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        train(tmp_path / "half", precision="fp16")


def test_stages_after_each_other_each_move_and_come_back_as_they_came(tmp_path):
    first, second = Toy().eval(), Plain()
    state = torch.get_rng_state()

    train(tmp_path / "first", first, precision="bf16", steps=2)
    moved = train(tmp_path / "second", second, steps=2, weights={"fit": 1.0})
    again = train(tmp_path / "again", second, steps=2, weights={"fit": 1.0}, seed=8)

    assert torch.equal(torch.get_rng_state(), state)
    assert not first.training
    assert second.training
    assert "forward" not in vars(first)
    assert not equal(moved, trainable_state(Plain()))
    assert again
    assert AcceleratorState().mixed_precision == "no"


def test_terms_and_weights_must_match(tmp_path):
    with pytest.raises(ConfigError) as raised:
        train(tmp_path, weights={"fit": 1.0, "smal": 1.0})

    text = str(raised.value)
    assert "stages.toy: weights and terms differ" in text
    assert "weights: the term 'small' has no weight" in text
    assert "weights.smal: there is no such term. Did you mean 'small'?" in text
    assert "terms: fit, small" in text


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_a_weighted_term_that_reaches_no_parameter_is_refused(tmp_path, weight):
    class Colour(Toy):
        def forward(self, batch, step):
            frozen = self.frozen(batch.image.requires_grad_()).mean()  # has a graph, but none of ours at its end
            return {**super().forward(batch, step), "colour": frozen}

    weights = {"fit": 1.0, "small": 0.5, "colour": weight}
    if not weight:
        train(tmp_path, Colour(), weights=weights, steps=1)
        return
    with pytest.raises(NumericalError, match=r"weights\.colour: 1\.0, but the term 'colour' reaches no parameter"):
        train(tmp_path, Colour(), weights=weights)


def test_a_stage_that_trains_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"stages\.toy: no parameter here is trained"):
        train(tmp_path, Toy().requires_grad_(False))


class Strange(Plain):
    """Not finite where it is told."""

    def __init__(self, bad):
        super().__init__()
        self.bad = bad

    def forward(self, batch, step):
        return {"fit": super().forward(batch, step)["fit"] * (math.nan if step in self.bad else 1)}


def test_one_strange_step_is_skipped_and_counted(tmp_path):
    weights = train(tmp_path, Strange({4}), weights={"fit": 1.0})

    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert [line.get("train/plain/skipped", 0) for line in logged(tmp_path)] == [0, 0, 0, 1, 1, 1, 1]


def test_strange_steps_in_a_row_end_the_training_and_name_samples(tmp_path):
    stage = Strange({4, 5, 6, 7})

    with pytest.raises(NumericalError, match=r"(?s)3 steps in a row, at step 7: loss, loss/fit.*6-0-0, 6-0-1"):
        train(tmp_path, stage, weights={"fit": 1.0})

    assert all(tensor.isfinite().all() for tensor in trainable_state(stage).values())


def test_batches_that_end_are_an_error(tmp_path):
    with pytest.raises(DataError, match=r"stages\.toy: the batches ended at step 5 of 12"):
        train(tmp_path, batches=lambda *place: iter([next(endless(k, 0, 1, 4)) for k in range(5)]))


def test_signals_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    train(tmp_path, steps=2)

    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_signal_in_the_last_step_still_stops_the_program(tmp_path):
    class Late(Toy):
        def forward(self, batch, step):
            if step == STEPS - 1:
                signal.raise_signal(signal.SIGTERM)
            return super().forward(batch, step)

    stage = Late()
    with pytest.raises(SystemExit) as raised:
        train(tmp_path, stage)

    assert raised.value.code == 143
    assert checkpoints(tmp_path)[0].name == "checkpoint-12"


def test_tracker_and_progress_hear_of_every_step_once(tmp_path):
    class Ear:
        def __init__(self):
            self.steps, self.replayed, self.images, self.done, self.notes = [], [], 0, [], []

        def log(self, metrics, step):
            self.steps.append(step)

        def replay(self, path):
            self.replayed += [line["step"] for line in logged(path.parent)]

        def advance(self, steps, images):
            self.images += images

        def resume(self, done):
            self.done.append(done)

        def note(self, text):
            self.notes.append(text)

    ears = Ear(), Ear()
    stop = lambda: signal.raise_signal(signal.SIGTERM)  # noqa: E731
    with pytest.raises(SystemExit):
        train(tmp_path, batches=lambda *place: endless(*place, event=(7, stop)), tracker=ears[0], progress=ears[0])
    train(tmp_path, tracker=ears[1], progress=ears[1])

    assert [ear.steps for ear in ears] == [[1, 2, 4, 6], [8, 10, 12]]
    assert ears[1].replayed == ears[0].steps
    assert ears[0].images + ears[1].images == STEPS * 4
    assert ears[0].done == [0]
    assert ears[1].done == [7]
    assert "stopped after step 7 of 12" in ears[0].notes[-1]


def test_steps_follow_from_epochs_and_the_batch_of_a_step():
    settings = Settings(epochs=3, batch_size=4, accumulate=2)

    assert settings.total(100) == 38
    assert Settings(steps=5).total(100) == 5


def test_the_learning_rate_rises_and_falls():
    settings = Settings(lr=1.0, warmup=4, schedule="cosine")
    rates = [settings.lr_at(step, 104) for step in range(104)]

    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[54] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3
    assert Settings(lr=2.0).lr_at(999, 1000) == 2.0


def test_settings_out_of_range_are_named_together():
    with pytest.raises(ConfigError) as raised:
        Settings(steps=-1, lr=0, schedule="cosin", ema=1.5, betas=[0.9])  # type: ignore[arg-type]

    text = str(raised.value)
    for problem in ("steps=-1", "lr=0: must be above 0", "Did you mean 'cosine'?", "ema=1.5", "betas=[0.9]"):
        assert problem in text


# Two ranks


def launched(mode, folder):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29561")
    return run_child(mode, folder, launcher=launcher)


@pytest.mark.slow
def test_two_ranks_with_half_the_batch_each_equal_one(tmp_path):
    child = launched("ddp", tmp_path / "two")
    assert child.returncode == 0, child.stderr[-3000:]

    one = train(tmp_path / "one", Plain(), weights={"fit": 1.0})

    two = torch.load(tmp_path / "two" / "weights.pt")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    for alone, together in zip(logged(tmp_path / "one"), logged(tmp_path / "two"), strict=True):
        assert together == pytest.approx(alone, abs=1e-5)


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(ConfigError, match="do not know of each other"):
        train(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "text"), [("uneven", ""), ("ended", "the batches ended at step 5 of 12"),
                                            ("one-term", "")])  # fmt: skip
def test_ranks_that_differ_never_hang(tmp_path, mode, text):
    child = launched(mode, tmp_path)

    assert text in child.stderr
    if mode == "uneven":
        assert child.returncode == 0, child.stderr[-3000:]
    elif mode == "one-term":  # the signal reached rank 1 alone
        assert "exitcode  : 143" in child.stderr
        assert checkpoints(tmp_path)[0].name == "checkpoint-8"
    else:
        assert child.returncode != 0


def child(mode: str, folder: Path) -> None:
    """What the tests above run in processes of their own."""
    logging.basicConfig()
    rank = int(os.environ.get("RANK", "0"))
    if mode in ("kill", "term", "int"):
        number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}[mode]
        train(folder, batches=lambda *place: endless(*place, event=(8, lambda: os.kill(os.getpid(), number))))
    elif mode == "rename":
        rename = os.rename
        os.rename = lambda source, target: (
            os.kill(os.getpid(), signal.SIGKILL) if str(target).endswith("-6") else rename(source, target)
        )
        train(folder)
    elif mode == "ddp":
        weights = train(folder, Plain(), weights={"fit": 1.0})
        if rank == 0:
            torch.save(weights, folder / "weights.pt")
    elif mode == "uneven":
        train(folder, batches=lambda *place: endless(*place[:3], size=4 + 3 * rank))
    elif mode == "ended":
        end = 5 if rank == 1 else 50
        train(folder, batches=lambda *place: (next(endless(k, 0, 1, 4)) for k in range(end)))
    elif mode == "one-term":
        event = (8, lambda: os.kill(os.getpid(), signal.SIGTERM)) if rank == 1 else None
        train(folder, batches=lambda *place: endless(*place, event=event))
    else:
        raise SystemExit(f"no such mode: {mode}")


if __name__ == "__main__":
    child(sys.argv[1], Path(sys.argv[2]))
