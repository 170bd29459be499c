"""A run's control and disentanglement: what it left behind under the judge and the probes."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from anastyle.checkpoint import load_tensors
from anastyle.data.split import PreparedSet, Split
from anastyle.evaluation.control.codes import FEWEST, Codes, dci, probes, retrieval
from anastyle.evaluation.control.leakage import Asked, leakage
from anastyle.evaluation.control.lesions import Lesions
from anastyle.evaluation.control.linked import Told, linked_values
from anastyle.evaluation.judge import Judge, pixels
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.values import Value

SWAPS, CODES = "swaps.safetensors", "codes.safetensors"


def control_values(
    painted: Path,
    aligned: Path | None,
    test: Split,
    data: PreparedSet,
    judge: Judge | None,
    lesions: Lesions | None,
    settings: Settings,
) -> dict[str, Value]:
    """Return what exchanged texts change, and of a run with an aligner what its codes hold.

    The leakage matrix and the probes need factors that are known; without, the change of lesions is measured.

    Arguments:
        painted: the folder that the generate stage left.
        aligned: the folder that the align stage left.
    """
    known = {name: target for name, target in test.factors.items() if (target >= 0).all()}
    kinds = kinds_of(known, data.anatomy_factors)
    found: dict[str, Value] = {}
    if judge is not None and kinds and (painted / SWAPS).is_file():
        found |= swapped_values(load_tensors(painted / SWAPS), known, kinds, judge, settings)
    elif lesions is not None and (painted / SWAPS).is_file():
        found |= lesions.changes(load_tensors(painted / SWAPS), settings)
    if aligned is not None:
        found |= code_values(load_tensors(aligned / CODES), known, kinds, settings)
    return found


def kinds_of(known: Mapping[str, Tensor], anatomy: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the factors of anatomy and those of style; nothing, where either has none."""
    kinds = {
        "anatomy": tuple(name for name in known if name in anatomy),
        "style": tuple(name for name in known if name not in anatomy),
    }
    return kinds if all(kinds.values()) else {}


def swapped_values(
    images: Mapping[str, Tensor],
    known: Mapping[str, Tensor],
    kinds: Mapping[str, tuple[str, ...]],
    judge: Judge,
    settings: Settings,
) -> dict[str, Value]:
    """Return the leakage matrix of pairs (caption ``i``, caption ``i + M``) of the first held-out captions."""
    count = len(images["same"])
    asked = Asked(
        {name: target[:count] for name, target in known.items()},
        {name: target[count : 2 * count] for name, target in known.items()},
    )
    answers = {field: judge.answers(image) for field, image in images.items()}
    return leakage(answers, asked, kinds, judge.fingerprint(), settings)


def code_values(
    stored: Mapping[str, Tensor], known: Mapping[str, Tensor], kinds: Mapping[str, tuple[str, ...]], settings: Settings
) -> dict[str, Value]:
    """Return probes and DCI of the codes after alignment, and retrieval before and after.

    Retrieval asks whose codes lie near each other: it is left out where an aligner reads factors of another shape.
    """

    def codes(when: str, origin: str) -> Codes:
        return Codes(*(stored[f"{when}/{origin}_{kind}"].double().numpy() for kind in Codes._fields))

    found: dict[str, Value] = {}
    count = len(stored["after/label"])
    if kinds and count >= FEWEST:
        factors = {name: target[:count].numpy() for name, target in known.items()}
        for origin in ("visual", "text"):
            shown = codes("after", origin)
            found |= probes(shown, origin, factors, kinds, settings) | dci(shown, origin, factors)
    if count >= FEWEST:
        for when in ("before", "after"):
            visual, text = codes(when, "visual"), codes(when, "text")
            if visual.anatomy.shape == text.anatomy.shape and visual.style.shape == text.style.shape:
                found |= retrieval(visual, text, when, settings)
    return found


def link_values(
    images: Tensor, decoded: Tensor | None, test: Split, data: PreparedSet, judge: Judge | None, settings: Settings
) -> dict[str, Value]:
    """Return what images of the first test captions show where these break a link of the training images."""
    links = getattr(data, "links", None)
    if not links or judge is None:
        return {}
    count = len(images)
    real = pixels(test, judge.model.side, list(range(count)))[0]
    told = Told(judge.answers(images), judge.answers(real), None if decoded is None else judge.answers(decoded))
    asked = {name: target[:count] for name, target in test.factors.items()}
    return linked_values(told, asked, links, data.factors, judge.fingerprint(), settings)
