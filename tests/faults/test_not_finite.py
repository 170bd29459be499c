"""A number that is not finite, wherever it comes from: the step is left out, named and counted, and leaves no trace."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anastyle import ALIGNERS, BACKBONES, EMBEDDERS, ENCODERS, FUSERS, Batch, NumericalError
from anastyle.checkpoint import trainable_state
from anastyle.evaluation.study import skipped
from anastyle.interfaces import Embedded
from anastyle.jsonlines import JsonLines
from anastyle.plan import Node
from anastyle.stages.settings import DiffuseSettings
from anastyle.stages.training import Diffuse, Disentangle, Stage
from anastyle.trainer import Settings, fit


@pytest.fixture
def disentangle(build: Any) -> Stage:
    return Disentangle(build(ENCODERS, "sdnet", image_size=32))  # it normalises over the batch


@pytest.fixture
def diffuse(build: Any, autoencoder: Any, batch: Batch) -> Stage:
    embedder = build(EMBEDDERS, "tfidf_svd")
    embedder.fit([caption.text for caption in batch.captions])
    batch.embedded = embedder.embed([caption.text for caption in batch.captions])
    backbone = build(BACKBONES, "compact_dit", autoencoder=autoencoder, image_size=32)
    aligner = build(ALIGNERS, "token_reader", text=embedder.dims, dims=None)
    fuser = build(FUSERS, "text_tokens", text=embedder.dims, dims=None, width=backbone.width)
    with torch.no_grad():
        batch.latent = backbone.encode(batch)
    return Diffuse(aligner, fuser, backbone, DiffuseSettings(drop_both=0, drop_anatomy=0, drop_style=0))


def spoilt(batch: Batch, field: str) -> Batch:
    """Return the batch with one number of one sample that is not finite."""
    value = getattr(batch, field)
    tensor = (value.tokens if isinstance(value, Embedded) else value).clone()
    tensor[2].view(-1)[0] = float("nan") if field != "latent" else float("inf")
    return replace(batch, **{field: value._replace(tokens=tensor) if isinstance(value, Embedded) else tensor})


def train(stage: Stage, batch: Batch, field: str, bad: set[int], folder: Path) -> None:
    def batches(start: int, rank: int, world: int, size: int) -> Iterator[Batch]:
        while True:
            yield spoilt(batch, field) if start in bad else batch
            start += 1

    terms = {name: 1.0 for name in stage_terms(stage, batch)}
    settings = Settings(steps=4, batch_size=4, lr=1e-4, log_every=1, weights=terms)
    fit(stage, batches, settings, folder=folder, seed=0, examples=4)


def stage_terms(stage: Stage, batch: Batch) -> list[str]:
    """Return the names of the terms that a stage gives."""
    twin = {name: value.clone() for name, value in stage.state_dict().items()}
    names = list(stage.train()(batch, 0))
    stage.load_state_dict(twin)
    return names


@pytest.mark.parametrize(
    ("name", "field"),
    [("disentangle", "image"), ("disentangle", "mask"), ("diffuse", "latent"), ("diffuse", "embedded")],
)
def test_a_spoilt_sample_costs_its_step_and_no_more(
    request: pytest.FixtureRequest, batch: Batch, name: str, field: str, tmp_path: Path, caplog: Any
) -> None:
    stage = request.getfixturevalue(name)
    caplog.set_level(logging.WARNING)

    train(stage, batch, field, {1}, tmp_path)

    learned = trainable_state(stage)
    assert all(tensor.isfinite().all() for tensor in learned.values() if tensor.is_floating_point())
    lines = [line for line, _ in JsonLines(tmp_path / "metrics.jsonl").read()]
    assert lines[-1][f"train/{name}/skipped"] == 1
    assert f"stages.{name}: step 2 skipped, not finite: loss" in caplog.text
    assert "samples: image-0, image-1, image-2, image-3" in caplog.text


def test_three_spoilt_steps_in_a_row_end_the_training(disentangle: Stage, batch: Batch, tmp_path: Path) -> None:
    with pytest.raises(NumericalError, match=r"(?s)3 steps in a row, at step 4.*image-2") as caught:
        train(disentangle, batch, "image", {1, 2, 3}, tmp_path)

    assert caught.value.exit_code == 4
    assert all(tensor.isfinite().all() for tensor in disentangle.state_dict().values() if tensor.is_floating_point())


def test_the_report_counts_what_was_skipped(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        lines.append({"step": step, "time": 0, "train/diffuse/loss": 1.0, "train/diffuse/skipped": step})
    plan = {"diffuse": Node("diffuse", "f", tmp_path, {})}

    assert skipped({("full", 42): plan, ("twin", 42): plan}) == [
        "full, seed 42: diffuse skipped 3 steps that were not finite."
    ]
