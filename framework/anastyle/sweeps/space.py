"""What a sweep searches: options by the dotted paths one would type, each with a list of values or a range."""

import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from anastyle.errors import did_you_mean
from anastyle.merge import PARTS
from anastyle.registry import REGISTRIES

Scalar = str | int | float | bool | None
CHOICE, RANGE = ("choice",), ("low", "high", "log", "step")
HOW = "write {choice: [a, b]}, or {low: 1, high: 8} with step: or log: true"


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    path: str
    values: tuple[Scalar, ...]

    def probes(self) -> list[Scalar]:
        """Return values that stand for all."""
        return list(self.values)

    def points(self) -> list[Scalar] | None:
        """Return every value."""
        return list(self.values)

    def __str__(self) -> str:
        return " | ".join(map(word, self.values))


@dataclass(frozen=True)
class Range:
    """A number between two others, both included."""

    path: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def probes(self) -> list[Scalar]:
        """Return values that stand for all."""
        return [self.low, self.high]

    def points(self) -> list[Scalar] | None:
        """Return every value; None where there is no end of them."""
        step = self.step or (1 if self.whole else None)
        if step is None or self.log:
            return None
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        values = [self.low + step * k for k in range(count)]
        return [round(value) if self.whole else float(f"{value:.12g}") for value in values]

    def __str__(self) -> str:
        how = ", log" if self.log else f", step {self.step:g}" if self.step else ""
        return f"{word(self.low)} to {word(self.high)}{how}"


Parameter = Choice | Range


def word(value: Scalar) -> str:
    """Return a value as one would type it."""
    return value if isinstance(value, str) else json.dumps(value)


def words(params: Mapping[str, Scalar]) -> list[str]:
    """Return a trial's options as ``a.b=c`` words; text is quoted, so that it stays text."""
    return [f"{path}={json.dumps(value)}" for path, value in params.items()]


def read_space(mapping: Any, kinds: Mapping[str, type]) -> tuple[list[Parameter], list[str]]:
    """Return the parameters of a ``space`` section and its problems.

    Arguments:
        kinds: of the options' present values, by path: a range over a float draws floats.
    """
    if not isinstance(mapping, Mapping) or not mapping:
        return [], [f"sweep.space: name at least one option and its values: {HOW}. Got {mapping!r}."]
    found: list[Parameter] = []
    problems: list[str] = []
    for path, spec in flat(mapping).items():
        parameter = _parameter(path, spec, kinds.get(path), problems)
        if parameter is not None:
            found.append(parameter)
    if not found and not problems:
        problems.append(f"sweep.space: every option in it is set to null. Leave one: {HOW}.")
    return found, problems


def flat(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a space says by dotted path; ``{backbone: {lora_rank: ...}}`` is ``backbone.lora_rank``.

    What is said twice of an option, in the file and on the command line, is one; what is null is left out.
    """
    return {path: value for path, value in _flat(mapping, "").items() if value is not None}


def _flat(mapping: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        path = f"{prefix}{key}"
        group = isinstance(value, Mapping) and value and not set(value) & {*CHOICE, *RANGE}
        if group and all(isinstance(inner, Mapping | None) for inner in value.values()):
            for inner, said in _flat(value, f"{path}.").items():
                found[inner] = {**found[inner], **said} if _two_halves(found.get(inner), said) else said
        else:
            found[path] = value
    return found


def _two_halves(one: Any, other: Any) -> bool:
    return isinstance(one, Mapping) and isinstance(other, Mapping)


def _parameter(path: str, spec: Any, kind: type | None, problems: list[str]) -> Parameter | None:
    where = f"sweep.space.{path}"
    if not isinstance(spec, Mapping):
        problems.append(f"{where}: {HOW}. Got {spec!r}.")
        return None
    for key in spec:
        if key not in (*CHOICE, *RANGE):
            problems.append(f"{where}.{key}: no such option.{did_you_mean(str(key), (*CHOICE, *RANGE))} {HOW}.")
            return None
    if ("choice" in spec) == ("low" in spec or "high" in spec):
        problems.append(f"{where}: has {'both a choice and a range' if 'choice' in spec else 'no values'}; {HOW}.")
        return None
    return _choice(path, spec, problems) if "choice" in spec else _range(path, spec, kind, problems)


def _choice(path: str, spec: Mapping[str, Any], problems: list[str]) -> Choice | None:
    where, values = f"sweep.space.{path}", spec["choice"]
    if len(spec) > 1:
        problems.append(f"{where}: a choice takes neither low, high, log nor step.")
    elif not isinstance(values, list) or not values:
        problems.append(f"{where}.choice: write a list of values. Got {values!r}.")
    elif any(not isinstance(value, str | int | float | bool | None) for value in values):
        problems.append(f"{where}.choice: takes numbers, words, true, false and null. Got {values!r}.")
    elif len(set(values)) < len(values):
        problems.append(f"{where}.choice: has a value twice. Got {values!r}; keep each once.")
    else:
        return Choice(path, tuple(values))
    return None


def _range(path: str, spec: Mapping[str, Any], kind: type | None, problems: list[str]) -> Range | None:
    where = f"sweep.space.{path}"
    options: dict[str, Any] = {key: spec.get(key) for key in RANGE}
    low, high, log, step = options.values()
    numbers = {"low": low, "high": high, **({} if step is None else {"step": step})}
    if wrong := [key for key, value in numbers.items() if type(value) not in (int, float) or not math.isfinite(value)]:
        problems.append(f"{where}.{wrong[0]}: write a number. Got {numbers[wrong[0]]!r}.")
        return None
    whole = all(type(value) is int for value in numbers.values()) and kind is not float
    faults = [
        (type(log) not in (bool, type(None)), f"log: write true or false. Got {log!r}."),
        (low >= high, f"low={low} must be below high={high}."),
        (bool(log) and low <= 0, f"log: low={low} must be above 0."),
        (bool(log) and step is not None, "log: takes no step."),
        (step is not None and step <= 0, f"step={step} must be above 0."),
    ]
    found = [f"{where}: {text}" for fault, text in faults if fault]
    if not found:
        convert = int if whole else float
        return Range(path, convert(low), convert(high), bool(log), None if step is None else convert(step), whole)
    problems += found
    return None


def grid(space: Sequence[Parameter], seed: int) -> list[dict[str, Scalar]]:
    """Return every combination of a space without endless ranges, in an order of the seed's."""
    values = [parameter.points() or [] for parameter in space]
    found: dict[str, dict[str, Scalar]] = {}
    for drawn in itertools.product(*values):
        point = dict(zip((one.path for one in space), drawn, strict=True))
        point = {path: value for path, value in point.items() if applies(path, point)}
        found[json.dumps(point)] = point
    points = list(found.values())
    random.Random(seed).shuffle(points)
    return points


def size(space: Sequence[Parameter]) -> int | None:
    """Return how many combinations there are; None where there is no end of them."""
    counts = [parameter.points() for parameter in space]
    return None if any(points is None for points in counts) else math.prod(len(points or ()) for points in counts)


def applies(path: str, drawn: Mapping[str, Scalar]) -> bool:
    """Say whether an option concerns a trial: where the part's name is drawn as well, that part must have it."""
    part, _, option = path.partition(".")
    name = drawn.get(f"{part}.name")
    if part not in PARTS or option == "name" or not isinstance(name, str) or name not in REGISTRIES[part].names():
        return True
    return option.split(".")[0] in {field.name for field in fields(REGISTRIES[part].get(name).Config)}


def in_order(space: Sequence[Parameter]) -> list[Parameter]:
    """Return parameters in the order they are drawn: names of parts first, their options after them."""
    return sorted(space, key=lambda parameter: not parameter.path.endswith(".name"))
