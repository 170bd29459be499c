"""DeepSpeed's ZeRO, as the shipped configurations launch it: what one process trains, and checkpoints that travel."""

import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from launchers import PROGRAM, Left, config, ranks

from anastyle.checkpoint import checkpoints, load_tensors

pytest.importorskip("deepspeed", exc_type=ImportError)
pytestmark = pytest.mark.slow
ZERO = {"zero1": config("zero2", "--zero_stage", "1"), "zero2": config("zero2"), "zero3": config("zero3")}
TERM = int(signal.SIGTERM)


@pytest.fixture(scope="module", params=ZERO)
def zero(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the launcher of two ranks under each stage."""
    return ZERO[request.param]


def stopped(launch, launcher: tuple[str, ...], folder: Path) -> Path:
    """Train five steps of eight; return the folder, in which a checkpoint is."""
    launch(launcher, PROGRAM, folder, f"event=5/0/{TERM}")
    assert checkpoints(folder / "work")[0].name == "checkpoint-5"
    return folder


@pytest.fixture(scope="module")
def half(launch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that one process began."""
    return stopped(launch, (sys.executable,), tmp_path_factory.mktemp("half"))


def test_zero_trains_what_one_process_does(zero, alone: Left, trained: Callable[..., Left]):
    trained(zero).equals(alone)


def test_a_checkpoint_goes_on_under_zero_and_back(zero, alone, half, launch, trained, tmp_path):
    taken = shutil.copytree(half, tmp_path / "taken")
    trained(zero, folder=taken).equals(alone)

    given = stopped(launch, zero, tmp_path / "given")
    for name in ("weights", "optimizer", "ema"):
        mine, theirs = (
            load_tensors(folder / "work" / "checkpoint-5" / f"{name}.safetensors") for folder in (given, half)
        )
        assert mine.keys() == theirs.keys()
        assert all((mine[key].double() - theirs[key].double()).abs().max() < 1e-6 for key in mine), name
    trained(ranks(2), folder=given).equals(alone)


def test_a_step_that_is_not_finite_is_skipped_alike(zero, trained):
    left = trained(zero, "strange=4", "checkpoint_every=100")

    plain = trained((sys.executable,), "strange=4", "checkpoint_every=100")
    assert [line.get("train/toy/skipped", 0) for line in left.log] == [0, 0, 0, 0, 1, 1, 1, 1][: len(left.log)]
    left.equals(plain)


def test_half_precision_of_loss_scales_is_refused(launch, tmp_path):
    done = launch(ZERO["zero2"], PROGRAM, tmp_path, "precision=fp16")

    assert "error: stages.toy.precision: fp16" in done.stderr


def test_bfloat16_trains_under_zero(zero, trained):
    left = trained(zero, "precision=bf16")

    assert {str(tensor.dtype) for name, tensor in left.weights.items() if "num" not in name} == {"torch.float32"}


def test_deepspeed_does_not_warn_at_every_step(launch, tmp_path):
    done = launch(ZERO["zero2"], PROGRAM, tmp_path, PYTHONWARNINGS="default")

    assert done.returncode == 0
    assert "all_gather_into_tensor" not in done.stderr
