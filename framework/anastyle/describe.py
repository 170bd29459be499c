"""What ``anastyle list`` and ``anastyle describe`` say about plugins; listing reads files and imports none."""

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields

from anastyle.errors import ConfigError, did_you_mean
from anastyle.options import default_of, option_notes, type_name
from anastyle.registry import REGISTRIES, Registry, package_folder


def plugin_list(kind: str | None = None) -> str:
    """List plugins by kind, each with the first line of its file.

    Raises:
        ConfigError: there is no such kind.
    """
    return "\n\n".join(_kind(registry) for registry in _registries(kind))


def _registries(kind: str | None) -> list[Registry]:
    if kind is None:
        return list(REGISTRIES.values())
    words = {word: registry for registry in REGISTRIES.values() for word in (registry.kind, registry.folder)}
    if kind not in words:
        known = ", ".join(REGISTRIES)
        raise ConfigError(f"there is no kind '{kind}'.{did_you_mean(kind, words)}\n  kinds: {known}")
    return [words[kind]]


def _kind(registry: Registry) -> str:
    modules = registry.modules()
    width = max(map(len, modules), default=0)
    rows = [f"  {name:<{width}}  {_first_line(module)}".rstrip() for name, module in sorted(modules.items())]
    return "\n".join([registry.folder, *(rows or ["  none"])])


def _first_line(module: str) -> str:
    """Return what a plugin's file opens with, without importing it."""
    package, folder, name = module.rsplit(".", 2)
    file = package_folder(package) / folder / f"{name}.py"
    try:
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, ValueError):
        return "(cannot be read)"
    return text.partition("\n")[0]


def description(name: str) -> str:
    """Describe every plugin of a name: kind, module, docstring, options.

    Raises:
        ConfigError: no plugin of any kind has this name.
    """
    holders = [registry for registry in REGISTRIES.values() if name in registry.modules()]
    if not holders:
        known = sorted({plugin for registry in REGISTRIES.values() for plugin in registry.names()})
        raise ConfigError(f"there is no plugin '{name}'.{did_you_mean(name, known)} See them all: anastyle list")
    return "\n\n".join("\n".join(_plugin(registry, name)) for registry in holders)


def _plugin(registry: Registry, name: str) -> Iterator[str]:
    cls = registry.get(name)
    yield f"{registry.kind} {name}  ({cls.__module__}.{cls.__qualname__})"
    for text in (sys.modules[cls.__module__].__doc__, cls.__doc__):
        if text:
            yield "\n" + _indent(inspect.cleandoc(text))
    wiring = [f"{word} {', '.join(sorted(getattr(cls, word)))}" for word in ("gives", "needs") if hasattr(cls, word)]
    if wiring:
        yield "\n" + _indent("\n".join(wiring))
    rows = list(_options(cls.Config))
    yield "\n  options" if rows else "\n  no options"
    yield from rows


def _options(schema: type) -> Iterator[str]:
    notes = option_notes(schema)
    written = [(field.name, type_name(schema, field.name), _default(schema, field.name)) for field in fields(schema)]
    widths = [max((len(row[column]) for row in written), default=0) for column in (0, 1)]
    for option, kind, default in written:
        yield f"    {option:<{widths[0]}}  {kind:<{widths[1]}}  {default}"
        if option in notes:
            yield _indent(notes[option], 8)


def _default(schema: type, option: str) -> str:
    default = default_of(schema, option)
    return "must be set" if default is MISSING else f"= {default!r}"


def _indent(text: str, width: int = 2) -> str:
    return "\n".join(" " * width + line if line else "" for line in text.splitlines())
