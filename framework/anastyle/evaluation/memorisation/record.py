"""What is known of a run's memorisation: a verdict, the numbers behind it, the pairs that look most like copies."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from PIL import Image

from anastyle.errors import DataError
from anastyle.evaluation.values import Value
from anastyle.jsonlines import write_json

FILE, SHEET = "memorisation.json", "memorisation.png"
Verdict = Literal["passed", "failed", "undefined"]


class Pair(NamedTuple):
    """A generated image and the training image it is nearest to."""

    generated: int  # its row
    train: str  # the training image's key
    row: int  # and row
    space: str  # in which they are nearest, by the space's own threshold
    distance: float
    ratio: float  # to the mean distance to the nearest training images
    copy: bool  # nearer than real held-out images are
    same: bool  # near-duplicates to the audit of the data set, by hash and local structure


@dataclass(frozen=True)
class Memorisation:
    """The verdict on a run. Training images are on the sheet: it stays where the training set may be seen."""

    verdict: Verdict
    reason: str
    limit: float | None = None  # of the lower end of the copy rate's interval
    values: dict[str, Value] = field(default_factory=dict)  # copy_rate, authenticity
    thresholds: dict[str, float] = field(default_factory=dict)  # space -> ratio at which a copy begins
    copies: dict[str, int] = field(default_factory=dict)  # space -> generated images
    leaked: int = 0  # held-out images that show a training image again, left out
    pairs: list[Pair] = field(default_factory=list)  # the worst first
    sheet: Image.Image | None = field(default=None, compare=False, repr=False)

    def write(self, folder: Path) -> None:
        """Write ``memorisation.json`` and, where there are pairs, the sheet of them."""
        plain = {name: value for name, value in vars(self).items() if name != "sheet"}
        values = {name: value.to_json() for name, value in self.values.items()}
        write_json(folder / FILE, {**plain, "values": values, "pairs": [pair._asdict() for pair in self.pairs]})
        if self.sheet is not None:
            self.sheet.save(folder / SHEET)


def read(folder: Path) -> Memorisation | None:
    """Read what ``Memorisation.write`` left in a folder, without the sheet; None where nothing was measured.

    Raises:
        DataError: the record is broken.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        values = {name: Value(**value) for name, value in known["values"].items()}
        found = Memorisation(**{**known, "values": values, "pairs": [Pair(**pair) for pair in known["pairs"]]})
        if found.verdict not in get_args(Verdict):
            raise ValueError(f"verdict '{found.verdict}'")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{file}: not a record of memorisation ({error}). Run the evaluate stage again.") from error
    return found
