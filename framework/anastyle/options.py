"""What a dataclass of options says about itself: types, defaults, notes."""

import ast
import inspect
from dataclasses import MISSING, fields
from itertools import pairwise
from typing import Any, get_args, get_type_hints

BARE = {False: ("no", "off"), True: ("yes", "on")}  # the words that YAML reads as these


def type_name(schema: type, option: str) -> str:
    """Name the type of an option as its class writes it."""
    annotation = next((field.type for field in fields(schema) if field.name == option), "another value")
    return annotation.__name__ if type(annotation) is type else str(annotation).replace("typing.", "")


def as_meant(schema: type, option: str, value: Any) -> Any:
    """Return the word that a person wrote, where YAML made a boolean of it and the option takes words."""
    words = get_args(get_type_hints(schema).get(option)) if isinstance(value, bool) else ()
    return next((word for word in words if word in BARE[value]), value)


def default_of(schema: type, option: str) -> Any:
    """Return the default of an option, or ``dataclasses.MISSING``."""
    field = next(field for field in fields(schema) if field.name == option)
    return field.default_factory() if field.default_factory is not MISSING else field.default


def option_notes(schema: type) -> dict[str, str]:
    """Return the docstring that follows each option in its class, bases first."""
    notes: dict[str, str] = {}
    for cls in reversed(schema.__mro__[:-1]):
        try:
            tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for option, note in pairwise(body):
            if isinstance(option, ast.AnnAssign) and isinstance(option.target, ast.Name) and _text(note):
                notes[option.target.id] = inspect.cleandoc(_text(note))
    return notes


def _text(node: ast.stmt) -> str:
    value = node.value if isinstance(node, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
