"""What is trained when, and on what loss. Listed here by name; each module wakes when its stage runs.

A training stage is one module whose losses come out of ``forward``, so that DDP and DeepSpeed see all of it.
"""

from dataclasses import dataclass

INSTRUMENTS = 2  # version of the networks that measure: their architecture and their training
MEASURES = 3  # version of what is measured with them


@dataclass(frozen=True)
class StagePlan:
    """What decides a stage's outcome: the sections of the file it reads and the stages it stands on."""

    sections: tuple[str, ...]
    after: tuple[str, ...] = ()
    trained: bool = True
    reads_captions: bool = False
    borrows: tuple[str, ...] = ()  # settings of other stages, by their paths below ``stages``
    version: int = 1  # of the stage's meaning; raised when the same sections come to train or measure something else


PLANS = {
    "autoencode": StagePlan(sections=("autoencoder",)),
    "disentangle": StagePlan(sections=("encoder",)),
    "align": StagePlan(sections=("embedder", "aligner"), after=("disentangle",), reads_captions=True, version=2),
    "diffuse": StagePlan(
        sections=("autoencoder", "embedder", "aligner", "fuser", "backbone"),
        after=("autoencode", "align"),
        reads_captions=True,
    ),
    "validate": StagePlan(
        sections=(),
        after=("diffuse",),
        trained=False,
        borrows=(
            *("generate.steps", "generate.guidance"),  # what it starts from
            *("evaluate.judge_steps", "evaluate.domain_steps", "evaluate.segmenter_steps", "evaluate.captioner"),
            "evaluate.bootstrap",
        ),
        version=INSTRUMENTS,
    ),
    "generate": StagePlan(sections=(), after=("diffuse", "validate"), trained=False, version=3),
    "evaluate": StagePlan(sections=(), after=("generate",), trained=False, version=INSTRUMENTS + MEASURES),
}
