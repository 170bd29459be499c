"""Put the networks of a finished ``experiments/pretrain_compact.yaml`` where the package ships them.

python launch/ship_compact.py runs plugins/anastyle_plugins/pretrained
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from anastyle.data.prepare import prepared
from anastyle.experiment import read
from anastyle.run import Conductor
from anastyle.work import Work


def ship(output: str, target: Path) -> None:
    """Write autoencoder, text embedding and transformer; the transformer in bfloat16, to stay small."""
    experiment = read(Path(__file__).parents[1] / "experiments" / "pretrain_compact.yaml", [f"output={output}"])
    conductor, run = Conductor(experiment), experiment.runs[0]
    plan = conductor.plan(run)
    if not plan["diffuse"].done:
        sys.exit(f"{plan['diffuse'].folder}: not there. Run the experiment first.")
    data = prepared(run.config["data"], experiment.output)
    work = Work(run, data, experiment.output, plan, None, None)  # type: ignore[arg-type]  # nothing is trained here
    work.load("diffuse")
    parts: Any = work.parts  # of known kinds: kl, tfidf_svd, compact_dit
    parts.autoencoder.export(target / "autoencoder")
    parts.embedder.save(target / "embedder")
    parts.backbone.transformer.to(torch.bfloat16).save_pretrained(target / "transformer", safe_serialization=True)
    stages = {name: node.fingerprint for name, node in plan.items()}
    (target / "origin.json").write_text(
        json.dumps({"experiment": "pretrain_compact", "stages": stages}, indent=1) + "\n"
    )


if __name__ == "__main__":
    ship(sys.argv[1], Path(sys.argv[2]))
