"""What the validate stage leaves: how each candidate did on validation captions, and with what the test is painted."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from anastyle.jsonlines import read_json, write_json
from anastyle.settings import GenerateSettings

FILE = "choice.json"


class Candidate(NamedTuple):
    """One guidance and one number of sampling steps, and what its images were worth."""

    guidance: float
    steps: int
    value: float
    low: float | None  # of the 95 % interval over captions
    high: float | None


class Start(NamedTuple):
    """The same chain before diffuse has trained anything, on the same captions and noise."""

    guidance: float
    value: float
    difference: float  # trained at its chosen guidance minus this
    low: float | None  # of the paired 95 % interval over captions
    high: float | None


@dataclass(frozen=True)
class Choice:
    """Guidance and sampling steps to paint with, and why these."""

    guidance: float
    steps: int
    criterion: str = ""  # the key of the value; empty: nothing was measured, and ``note`` says why
    lower_is_better: bool = False
    n: int = 0  # validation captions
    candidates: list[Candidate] = field(default_factory=list)
    start: Start | None = None
    note: str = ""

    @property
    def learned(self) -> bool | None:
        """Whether the row is better than its own start beyond the interval; None: nobody looked."""
        if self.start is None or self.start.low is None or self.start.high is None:
            return None
        return self.start.high < 0 if self.lower_is_better else self.start.low > 0

    @property
    def words(self) -> str:
        """What was chosen, of what, by what."""
        if self.note:
            return f"guidance {self.guidance:g}, {self.steps} steps: {self.note}"
        tried = ", ".join(
            f"{one.guidance:g}{self._steps(one)} gives {number(self.criterion, one.value, one.low, one.high)}"
            for one in self.candidates
        )
        picked = f"guidance {self.guidance:g}, {self.steps} steps"
        return f"{picked}, by {self.criterion} of {self.n} validation captions: {tried}"

    def _steps(self, one: Candidate) -> str:
        return f" in {one.steps} steps" if len({other.steps for other in self.candidates}) > 1 else ""

    @property
    def warning(self) -> str:
        """What a row is to be told that is no better than its own start; nothing, where it is or nobody looked."""
        if self.learned is not False or self.start is None:
            return ""
        start = self.start
        apart = number(self.criterion, start.difference, start.low, start.high)
        return (
            f"no better than its own untuned start ({self.criterion} differs by {apart}, start "
            f"{number(self.criterion, start.value)}, {self.n} validation captions): the row measures its base"
        )

    def write(self, folder: Path) -> None:
        """Write it into the stage's folder."""
        write_json(folder / FILE, asdict(self) | {"candidates": [one._asdict() for one in self.candidates],
                                                  "start": self.start and self.start._asdict()})  # fmt: skip

    @classmethod
    def read(cls, folder: Path) -> "Choice":
        """Read what ``write`` wrote."""
        stored: dict[str, Any] = read_json(folder / FILE)
        candidates = [Candidate(**one) for one in stored.pop("candidates")]
        start = stored.pop("start")
        return cls(**stored, candidates=candidates, start=Start(**start) if start else None)


def number(criterion: str, value: float, low: float | None = None, high: float | None = None) -> str:
    """Return a value with its interval: shares in percent, kernel distances in thousandths."""
    scale = 1000 if criterion == "kid" else 100
    interval = "" if low is None or high is None else f" ({low * scale:.1f} to {high * scale:.1f})"
    return f"{value * scale:.1f}{interval}"


def painted_with(settings: GenerateSettings, validated: Path) -> GenerateSettings:
    """Return the settings that the generate stage paints with, after a validate stage has chosen."""
    choice = Choice.read(validated)
    return replace(settings, guidance=choice.guidance, steps=choice.steps)


def logged(choice: Choice) -> dict[str, float]:
    """Return what of a choice is a metric of its run."""
    told = {"guidance": choice.guidance, "steps": float(choice.steps)}
    told |= {f"{choice.criterion}/guidance-{one.guidance:g}-steps-{one.steps}": one.value for one in choice.candidates}
    if choice.start is not None:
        told |= {"start": choice.start.value, "over_start": choice.start.difference}
    return {f"validate/{name}": value for name, value in told.items()}
