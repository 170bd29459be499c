"""Numbers that papers report, as data: shown beside ours, never ranked among them."""

from importlib import resources
from typing import Any

import yaml

from anastyle.errors import ConfigError, did_you_mean
from anastyle.evaluation.tables import Cell, Column, Line, Table

FILE = "vg_medgen.yaml"
PROTOCOL = (
    "as published (VG-MedGen, {title}); its feature networks, sample counts and splits are not stated: "
    "not comparable with anything measured here"
)


def published(name: str) -> Table:
    """Return a table of the paper.

    Raises:
        ConfigError: there is none of this name.
    """
    content = _content()
    if name not in content:
        near = did_you_mean(name, list(content))
        raise ConfigError(f"published: there is no table '{name}'.{near} Tables: {', '.join(content)}")
    told = content[name]
    columns = [
        Column(title, title, lower, digits=3 if title not in ("FID", "HFD", "KFD", "BFD") else 2)
        for title, lower in zip(told["columns"], told["lower_is_better"], strict=True)
    ]
    lines = [Line(row, [Cell(number) for number in numbers]) for row, numbers in told["rows"].items()]
    note = PROTOCOL.format(title=told["title"])
    return Table(columns, lines, protocols=dict.fromkeys(told["columns"], note), title=f"Published: {told['title']}")


def beside(variants: list[str]) -> list[Table]:
    """Return the paper's tables that have all of these rows."""
    return [published(name) for name, told in _content().items() if set(variants) <= set(told["rows"])]


def _content() -> dict[str, Any]:
    file = resources.files(__name__).joinpath(FILE)
    return yaml.safe_load(file.read_text(encoding="utf-8"))
