"""The evaluate stage: a run's images under the instruments, and what it leaves for the report."""

import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from anastyle.checkpoint import load_tensors, refuse_damaged, write_folder
from anastyle.config import typed
from anastyle.data.cache import cached
from anastyle.data.images import picture_of, unsigned
from anastyle.data.loader import in_order
from anastyle.data.split import Split
from anastyle.evaluation.control.measured import control_values, link_values
from anastyle.evaluation.evaluate import evaluate_images
from anastyle.evaluation.instruments import instruments
from anastyle.evaluation.memorisation.gate import gate
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.samples import write_samples
from anastyle.evaluation.utility.measured import utility_values
from anastyle.evaluation.values import COST, Value
from anastyle.jsonlines import JsonLines, write_line
from anastyle.parts import Parts
from anastyle.plan import Node, settings_of
from anastyle.settings import EvaluateSettings
from anastyle.stages import PLANS
from anastyle.tracking import Tracker


def measure(
    node: Node, plan: dict[str, Node], parts: Parts, output: Path, device: torch.device, tracker: Tracker
) -> None:
    """Evaluate one run's generated images, the last of the stages of ``plan``, and store the values whole."""
    painted = plan["generate"]
    settings = typed(EvaluateSettings, node.settings, "stages.evaluate")
    refuse_damaged(painted.folder)
    shown = load_tensors(painted.folder / "images.safetensors")
    images, masks = shown["images"], shown.get("masks")
    rows = list(range(len(images)))
    # what was asked is what the held-out captions say in full, whatever part of it the variant was told
    asked = painted.settings.get("split", "test")
    train, test = (parts.data.split(name, image_size=parts.image_size) for name in ("train", asked))
    tools = instruments(settings, len(images), parts, output, device, masks=masks is not None, asked=asked)
    draws = Settings(draws=settings.bootstrap)
    lossy = decoded(parts, test.subset(rows), output, device)
    values = evaluate_images(
        images, rows, train, test, features=tools.features, judge=tools.judge, real=tools.real, decoded=lossy,
        settings=draws,
    )  # fmt: skip
    if tools.lesions:
        values |= tools.lesions.faithfulness(images, lossy, draws)
        values |= tools.lesions.pairs(images, masks, draws) if masks is not None else {}
    aligned = plan["align"].folder if "align" in plan and asked == "test" else None  # its codes are of test images
    values |= control_values(painted.folder, aligned, test, parts.data, tools.judge, tools.lesions, draws)
    values |= link_values(images, lossy, test, parts.data, tools.judge, draws)
    if settings.utility:
        values |= utility_values(
            images, rows, train, test, parts.data.classes, networks=settings.utility, steps=settings.utility_steps,
            cache=output / "cache", device=device, masks=masks,
        )  # fmt: skip
    values |= cost_values(painted.folder) | {COST + "minutes": training_value(plan)}
    copied = gate(images, train, test, tools.spaces, bench=tools.bench) if tools.bench else None
    values |= copied.values if copied else {}
    metrics = {f"eval/{name}": value.value for name, value in values.items()}
    grid = sheet(images[: painted.settings["grid"]])
    with write_folder(node.folder) as folder:
        text = json.dumps({name: value.to_json() for name, value in values.items()}, indent=1)
        (folder / "values.json").write_text(text)
        write_samples(folder, values, images, tools.real, tools.features)
        write_line(folder / "metrics.jsonl", metrics)
        grid.save(folder / "samples.png")
        if copied:
            copied.write(folder)
    tracker.replay(node.folder / "metrics.jsonl")


def cost_values(painted: Path) -> dict[str, Value]:
    """Return what painting took, as the generate stage wrote it down."""
    found = json.loads((painted / "cost.json").read_text())
    words = {
        "parameters": "Parameters of all that paints an image, adapters merged",
        "gflop": "Arithmetic of one image, 2 FLOP per multiply-add, in 10^9",
        "seconds": "Seconds an image took to paint, captions embedded beforehand",
        "gib": "Weights, and activations of a batch at their peak, in GiB, counted",
    }
    how = found["how"]
    return {COST + name: Value(found[name], n=1, protocol=f"{what}: {how}") for name, what in words.items()}


def training_value(plan: dict[str, Node]) -> Value:
    """Return how long every stage that a run stands on was trained, whichever run trained it."""
    minutes = sum(training_seconds(node) for node in plan.values() if PLANS[node.stage].trained) / 60
    return Value(minutes, n=1, protocol="Minutes of training, of every stage that the row stands on, pauses left out")


def training_seconds(node: Node) -> float:
    """Return the seconds a finished training took, by the images a second in its log."""
    settings, seconds, before = settings_of(node), 0.0, 0
    for line, _ in JsonLines(node.folder / "metrics.jsonl").read():
        images = (line["step"] - before) * settings.batch_size * settings.accumulate
        seconds += images / line[f"perf/{node.stage}/images_per_s"]
        before = line["step"]
    return seconds


def values_of(folder: Path) -> dict[str, Value]:
    """Read the values that ``measure`` stored."""
    return {name: Value(**value) for name, value in json.loads((folder / "values.json").read_text()).items()}


def decoded(parts: Parts, asked: Split, output: Path, device: torch.device) -> Tensor:
    """Return real images after the autoencoder, uint8 (n, 3, S, S): what no generator behind it can exceed."""
    autoencoder = parts.autoencoder.to(device).eval()
    identity = {
        "what": "decoded",
        "data": parts.data.fingerprint,
        "image_size": parts.image_size,
        "split": asked.name,
        "rows": len(asked),
        "autoencoder": autoencoder.fingerprint(),
    }

    @torch.no_grad()
    def compute() -> dict[str, Tensor]:
        shown = []
        for batch in in_order(asked, ("image",), batch_size=64):
            assert batch.image is not None
            mean, _ = autoencoder.encode(batch.image.to(device)).chunk(2, dim=1)
            shown.append(unsigned(autoencoder.decode(mean)))
        return {"images": torch.cat(shown)}

    return cached(output / "cache", identity, compute)["images"]


def sheet(images: Tensor, columns: int = 8) -> Image.Image:
    """Lay uint8 images (n, 3, S, S) out as one picture."""
    count, _, side, _ = images.shape
    columns = min(columns, count)
    lines = -(-count // columns)
    page = torch.full((3, lines * (side + 2) - 2, columns * (side + 2) - 2), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (side + 2), i % columns * (side + 2)
        page[:, top : top + side, left : left + side] = image
    return picture_of(page)
