"""Errors that say where, what, and the way out. Each knows the exit code it ends a program with."""

from collections.abc import Iterable
from difflib import get_close_matches

PROBLEMS = 7  # the exit code of a command that came to its end and has problems to tell: failed variants, faults found


class AnastyleError(Exception):
    """A fault a person can mend; printed without a traceback."""

    exit_code = 1


class ConfigError(AnastyleError):
    """The experiment file or the command line cannot be what was meant."""

    exit_code = 2


class DataError(AnastyleError):
    """An input file is missing, broken or of another form."""

    exit_code = 2


class MissingError(AnastyleError):
    """Data or weights are not here."""

    exit_code = 3


class NumericalError(AnastyleError):
    """A loss is not finite, or a weighted term reaches no parameter."""

    exit_code = 4


class LostError(AnastyleError):
    """Another of the processes launched together is gone, or does not answer; this one cannot go on alone."""


class ShortageError(AnastyleError):
    """There is less memory than this takes."""

    exit_code = 5


class GateError(AnastyleError):
    """What was asked for is finished or could be, but a gate says no."""

    exit_code = 6


class Pruned(Exception):  # noqa: N818  # an ending, no error
    """A trial of a sweep was ended early, because others were better. No fault."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known word, or nothing."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def listing(problems: list[str], *, shown: int = 3) -> str:
    """Join problems of one kind, the first few in full and the rest as a count."""
    lines = [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  and {len(problems) - shown} more")
    return "\n".join(lines)
