"""The model card of an exported run: where it comes from, how it was measured, what it must not be used for."""

import json
from typing import Any

from anastyle.evaluation.control.leakage import SWAP
from anastyle.evaluation.evaluate import FACTOR
from anastyle.evaluation.measure import values_of
from anastyle.evaluation.memorisation.record import Memorisation
from anastyle.evaluation.values import Value
from anastyle.painting.finished import FinishedRun
from anastyle.painting.origin import read_origin
from anastyle.painting.painted import versions

UNKNOWN = "not recorded"
HEAD = """---
library_name: diffusers
pipeline_tag: text-to-image
tags: [anastyle, medical-imaging, synthetic, not-for-clinical-use]
license: other
license_name: see-data-and-base-model
---
"""
ABOUT = "Text to medical images, anatomy and style read apart from the words. Made with Anastyle."
USE = """Research on controllable medical image generation. **Not for clinical use**: every image it makes is synthetic,
and none may inform a diagnosis, a treatment or the training of a device without a validation of its own. It may repeat
images, and biases, of its training set."""
LOAD = {
    "adapter": """over diffusers' own pipeline of the base, `pipe.load_lora_weights("adapter")`, or where it has none
  `anastyle_plugins.exports.load_adapter(pipe, "adapter")`. The run's sampler:
  `DPMSolverMultistepScheduler.from_pretrained("adapter")`. The LoRA alone: a run that reads factors takes its
  conditions from the text side.""",
    "peft": """`PeftModel.from_pretrained(transformer, "peft")`, over the network of the base. Where `text_encoder` lies
  beside it, the text encoder was tuned too: the same, over its stack of layers.""",
    "pipeline": """`import anastyle_plugins.exports`, `pipe = DiffusionPipeline.from_pretrained("pipeline")`,
  `pipe(anatomy="...", style="...", generator=torch.Generator().manual_seed(0)).images[0]`.""",
}


def card(
    run: FinishedRun, formats: list[str], memorisation: Memorisation | None = None, accepted: str | None = None
) -> str:
    """Return the card of a run, exported in these formats, as Markdown.

    Arguments:
        memorisation: what is known of it; None: nothing.
        accepted: why the risk of copies was accepted.
    """
    origin = read_origin(run.stored("diffuse"))
    sections = [
        f"{HEAD}# {run.name}\n\n{ABOUT}",
        "## Intended use\n\n" + USE,
        "## Formats\n\n" + "\n".join(f"- `{kind}`: {LOAD[kind]}" for kind in formats if kind in LOAD),
        "## Data\n\n" + _data(origin.get("data") or {}),
        "## Parts\n\n" + _parts(run.config),
        "## Training\n\n" + _training(run),
        "## Measured\n\n" + _metrics(run),
        "## Memorisation\n\n" + _memorisation(memorisation, accepted),
        "## Versions\n\n" + _versions(origin.get("environment") or {}),
    ]
    return "\n\n".join(sections) + "\n"


def _data(data: dict[str, Any]) -> str:
    images = ", ".join(f"{count} {split}" for split, count in (data.get("images") or {}).items())
    lines = {
        "licence": data.get("licence") or f"{UNKNOWN}; the terms of the training set hold, ask its publisher",
        "set": f"{data.get('dataset') or UNKNOWN}, fingerprint {str(data.get('fingerprint') or UNKNOWN)[:12]}",
        "images": images or UNKNOWN,
        "split": data.get("split_kind") or UNKNOWN,
        "captions": data.get("captions") or UNKNOWN,
    }
    return _lines(lines)


def _parts(config: dict[str, Any]) -> str:
    parts = ("encoder", "embedder", "aligner", "fuser", "autoencoder", "backbone")
    return _lines({part: f"`{json.dumps(config[part])}`" for part in parts if config.get(part)})


def _training(run: FinishedRun) -> str:
    stages = {name: run.config["stages"].get(name) or {} for name in run.stages}
    told = {name: f"`{json.dumps(settings)}`, fingerprint {run.stages[name]}" for name, settings in stages.items()}
    return _lines({"seed": str(run.seed), **told})


def _metrics(run: FinishedRun) -> str:
    if "evaluate" not in run.stages:
        return "Nothing was measured."
    values = values_of(run.stored("evaluate"))
    shown = {name: value for name, value in values.items() if "/" not in name or name.startswith((FACTOR, SWAP))}
    rows = [f"| {name} | {_number(value)} | {value.n} | {value.protocol} |" for name, value in shown.items()]
    return "\n".join(["| metric | value (95 % interval) | n | protocol |", "|---|---|--:|---|", *rows])


def _memorisation(found: Memorisation | None, accepted: str | None) -> str:
    if found is None:
        told = {"verdict": "not measured; whether the model copies images of its training set is not known"}
    else:
        rate = found.values.get("copy_rate")
        told = {"verdict": f"**{found.verdict}**; {found.reason}", **({"protocol": rate.protocol} if rate else {})}
    return _lines(told | ({"risk accepted": " ".join(accepted.split())} if accepted else {}))


def _number(value: Value) -> str:
    interval = "" if value.low is None or value.high is None else f" ({value.low:.4g} to {value.high:.4g})"
    return f"{value.value:.4g}{interval}"


def _versions(trained: dict[str, Any]) -> str:
    packages = trained.get("packages") or {}
    told = ", ".join(f"{name} {number}" for name, number in packages.items())
    exported = ", ".join(f"{name} {number}" for name, number in versions().items())
    return _lines({"trained with": told or UNKNOWN, "code": trained.get("code") or UNKNOWN, "exported with": exported})


def _lines(lines: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in lines.items())
