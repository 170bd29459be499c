"""Every fault of the table in tests/README.md has tests, and they are there."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROWS = [
    line for line in (TESTS / "README.md").read_text(encoding="utf-8").splitlines() if re.match(r"\| +\d+ \|", line)
]


@lru_cache
def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_its_row() -> None:
    assert [int(row.split("|")[1]) for row in ROWS] == list(range(1, 32))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_row_says_what_comes_of_it_and_names_tests_that_exist(row: str) -> None:
    _, _, fault, outcome, tests, _ = (cell.strip() for cell in row.split("|"))

    assert fault
    assert re.match(r"[ERD]\b|as declared, or E", outcome)
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
    missing = [f"{file}::{name}" for file, name in named if name not in functions(TESTS / file)]
    assert missing == []
    assert named or "to come in `" in tests
