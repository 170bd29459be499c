"""Folders whole or not at all; what of a stage is worth storing; checkpoints that can be trusted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from anastyle import DataError, MissingError
from anastyle.checkpoint import (
    checkpoints,
    is_complete,
    load_metadata,
    load_optimizer_state,
    load_tensors,
    load_trainable_state,
    newest_checkpoint,
    optimizer_state,
    remove_leftovers,
    save_checkpoint,
    save_tensors,
    trainable_state,
    verify,
    write_folder,
)


def write(folder: Path, text: str) -> None:
    with write_folder(folder) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "words.txt").write_text(text)


def test_a_folder_written_to_its_end_is_sealed_and_alone(tmp_path):
    write(tmp_path / "done", "hello")

    assert os.listdir(tmp_path) == ["done"]
    assert is_complete(tmp_path / "done")
    assert verify(tmp_path / "done") == []
    assert list(json.loads((tmp_path / "done" / "COMPLETE.json").read_text())["files"]) == ["inner/words.txt"]


def test_an_error_leaves_what_was_there_before_and_nothing_else(tmp_path):
    write(tmp_path / "done", "first")

    def fail():
        with write_folder(tmp_path / "done") as temporary:
            (temporary / "new.txt").write_text("second")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()

    assert os.listdir(tmp_path) == ["done"]
    assert (tmp_path / "done" / "inner" / "words.txt").read_text() == "first"


def test_writing_again_replaces(tmp_path):
    write(tmp_path / "done", "first")
    write(tmp_path / "done", "second")

    assert os.listdir(tmp_path) == ["done"]
    assert (tmp_path / "done" / "inner" / "words.txt").read_text() == "second"


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_kill_while_writing_leaves_no_folder_under_the_final_name(tmp_path, call):
    script = f"""
import os, signal
from pathlib import Path
from anastyle.checkpoint import write_folder
os.{call} = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
with write_folder(Path({str(tmp_path / "done")!r})) as temporary:
    (temporary / "words.txt").write_text("hello")
"""

    child = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})

    assert child.returncode == -9
    assert not (tmp_path / "done").exists()
    assert len(os.listdir(tmp_path)) == 1  # what remove_leftovers is for
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == []


def test_truncated_flipped_missing_and_unsealed_are_told_apart(tmp_path):
    write(tmp_path / "done", "hello")
    file = tmp_path / "done" / "inner" / "words.txt"

    file.write_text("hellO")
    assert is_complete(tmp_path / "done")  # of the right size; only reading it tells
    assert "contents changed" in verify(tmp_path / "done")[0]
    file.write_text("hell")
    assert not is_complete(tmp_path / "done")
    assert "4 bytes instead of 5" in verify(tmp_path / "done")[0]
    file.unlink()
    assert not is_complete(tmp_path / "done")
    assert "missing" in verify(tmp_path / "done")[0]
    (tmp_path / "done" / "COMPLETE.json").write_text("{")
    assert not is_complete(tmp_path / "done")
    assert "COMPLETE.json is missing or broken" in verify(tmp_path / "done")[0]


def test_tensors_come_back_as_they_were_shared_or_strided(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    tensors = {"base": base, "view": base.T, "same": base, "half": base.bfloat16(), "scalar": torch.tensor(3)}

    save_tensors(tmp_path / "x.safetensors", tensors, {"step": "4"})
    back = load_tensors(tmp_path / "x.safetensors")

    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) and back[name].dtype == tensors[name].dtype for name in tensors)
    assert load_metadata(tmp_path / "x.safetensors") == {"step": "4"}


def test_tensors_that_cannot_be_read_say_which_file(tmp_path):
    save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(100)})
    os.truncate(tmp_path / "x.safetensors", 200)

    with pytest.raises(DataError, match=r"x\.safetensors: not a whole safetensors file"):
        load_tensors(tmp_path / "x.safetensors")
    with pytest.raises(MissingError, match=r"y\.safetensors: no such file"):
        load_tensors(tmp_path / "y.safetensors")


class Mixed(nn.Module):
    """Trained and frozen parts, each with buffers of every kind."""

    name = "mixed"

    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False))
        self.frozen = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False))
        self.frozen.requires_grad_(False)
        self.frozen.register_buffer("scale", torch.ones(1))
        self.adapted = nn.Linear(2, 2).requires_grad_(False)
        self.adapted.register_buffer("position", torch.ones(3))
        self.adapted.lora = nn.Linear(2, 1, bias=False)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def test_what_is_stored_is_what_is_trained_and_its_buffers():
    kept = set(trainable_state(Mixed()))

    expected = {"trained.0.weight", "trained.0.bias", "trained.1.weight", "trained.1.bias", "mean"}
    expected |= {f"trained.{layer}.{name}" for layer in (1, 2) for name in STATISTICS}
    expected |= {"adapted.lora.weight", "adapted.position"}
    assert kept == expected


def test_a_stage_frozen_or_not_takes_its_weights_back():
    torch.manual_seed(1)
    trained, empty = Mixed(), Mixed()
    trained.trained(torch.randn(8, 2))
    frozen_before = empty.frozen[0].weight.clone()

    load_trainable_state(empty.requires_grad_(False), trainable_state(trained))

    for name, tensor in trainable_state(trained).items():
        assert torch.equal(empty.state_dict()[name], tensor), name
    assert torch.equal(empty.frozen[0].weight, frozen_before)


def test_weights_of_another_model_are_refused_with_every_reason():
    tensors = trainable_state(Mixed())
    tensors["mean"] = torch.zeros(5)
    tensors["stranger"] = torch.zeros(1)
    del tensors["trained.0.bias"]

    with pytest.raises(DataError) as raised:
        load_trainable_state(Mixed(), tensors)

    text = str(raised.value)
    assert "stage 'mixed'" in text
    assert "mean: stored as (5,), the stage has (1,)" in text
    assert "stranger: the stage has no such tensor" in text
    assert "trained.0.bias: is not among the stored tensors" in text


def test_an_optimizer_goes_on_where_it_was():
    def trained(steps, resume_at=None):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for step in range(steps):
            if step == resume_at:
                tensors = optimizer_state(optimizer, ["weight", "bias"])
                assert {name for name in tensors if "bias" in name} == {"bias.step", "bias.exp_avg", "bias.exp_avg_sq"}
                optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
                load_optimizer_state(optimizer, ["weight", "bias"], tensors)
            optimizer.zero_grad()
            model(torch.full((4, 3), float(step))).square().mean().backward()
            optimizer.step()
        return model.weight.detach()

    assert torch.equal(trained(6), trained(6, resume_at=3))


def save(folder: Path, step: int) -> Path:
    return save_checkpoint(folder, step, {"weights": {"w": torch.full((8,), float(step))}}, {"sums": {}}, keep=2)


def test_the_newest_checkpoints_are_kept_by_number_and_strangers_are_left(tmp_path):
    (tmp_path / "checkpoint-final").mkdir()
    for step in (8, 9, 10):
        save(tmp_path, step)

    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-9"]
    assert (tmp_path / "checkpoint-final").is_dir()
    assert json.loads((tmp_path / "checkpoint-10" / "state.json").read_text())["step"] == 10


@pytest.mark.parametrize("damage", ["truncate", "flip", "unseal", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_is_named(tmp_path, damage):
    save(tmp_path, 4)
    bad = save(tmp_path, 8)
    file = bad / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    if damage == "truncate":
        os.truncate(file, 10)
    elif damage == "flip":
        file.write_bytes(content)
    else:
        (bad / "COMPLETE.json").unlink()
    if damage == "empty":
        for inner in bad.iterdir():
            inner.unlink()
    said: list[str] = []

    newest = newest_checkpoint(tmp_path, said.append)

    assert newest == tmp_path / "checkpoint-4"
    assert len(said) == 1
    assert "skipped checkpoint-8, which is damaged" in said[0]
    assert not bad.exists()


def test_only_damaged_checkpoints_are_an_error_that_keeps_them(tmp_path):
    bad = save(tmp_path, 4)
    (bad / "COMPLETE.json").unlink()

    with pytest.raises(DataError, match="no checkpoint is whole"):
        newest_checkpoint(tmp_path, print)

    assert bad.is_dir()


def test_no_checkpoint_is_no_error(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere", print) is None
