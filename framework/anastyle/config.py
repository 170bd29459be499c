"""A section of an experiment file -> a class and its typed options, or an error with the way out.

A section stays a plain mapping until the registry has seen its ``name``; only then is it held against that class's
``Config``. Values are values: an interpolation (``${...}``), a class path (``_target_``) or a hole (``???``) is
refused, so that a file cannot read the environment, name code to run, or be half-written.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from anastyle.errors import AnastyleError, ConfigError, did_you_mean, listing
from anastyle.options import as_meant, type_name
from anastyle.registry import Registry

T = TypeVar("T")


def section(registry: Registry, mapping: Mapping[str, Any], where: str) -> tuple[Any, Any]:
    """Return the class that a section such as ``{name: hffm, hidden_dim: 3}`` names, and its typed ``Config``.

    Raises:
        ConfigError: no such component, or options that are not its own; all of them at once.
    """
    cls, config, problems = read_section(registry, mapping, where)
    refuse(problems)
    return cls, config


def typed(schema: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Return a dataclass filled from a mapping.

    Raises:
        ConfigError: unknown options or values of another type; all of them at once.
    """
    config, problems = read_typed(schema, mapping, where)
    refuse(problems)
    assert config is not None  # no problem, hence a config
    return config


def read_section(registry: Registry, mapping: Any, where: str) -> tuple[Any, Any, list[str]]:
    """Return class, typed options and problems of a section; with problems, what could be read of the two."""
    if not isinstance(mapping, Mapping):
        return None, None, [f"{where}: write a mapping, {{name: {mapping}}}, or null. Got {mapping!r}."]
    name = mapping.get("name")
    if not isinstance(name, str):
        known = ", ".join(registry.names()) or "none"
        return None, None, [f"{where}.name: say which {registry.kind}, as a word.\n  available: {known}"]
    try:
        cls = registry.get(name)
    except ConfigError as error:
        return None, None, [f"{where}.name: {error}"]
    options = {key: value for key, value in mapping.items() if key != "name"}
    config, problems = read_typed(cls.Config, options, where)
    return cls, config, problems


def read_typed(schema: type[T], mapping: Any, where: str) -> tuple[T | None, list[str]]:
    """Return the filled dataclass, or None, and every problem of the mapping."""
    if not isinstance(mapping, Mapping):
        return None, [f"{where}: write a mapping of options. Got {mapping!r}."]
    problems = unreadable(mapping, where)
    if problems:
        return None, problems
    merged = OmegaConf.structured(schema)
    for key, value in mapping.items():
        problem, merged = _merge_option(merged, schema, key, value, where)
        problems += problem
    if problems:
        return None, problems
    try:
        config: Any = OmegaConf.to_object(merged)
    except MissingMandatoryValue as error:
        return None, [f"{where}.{error.full_key}: has no default and must be set."]
    except (AnastyleError, ValueError, TypeError, OmegaConfBaseException) as error:  # __post_init__ objects
        return None, [f"{where}: {str(error).splitlines()[0]}"]
    return config, []


def _merge_option(merged: Any, schema: type, key: str, value: Any, where: str) -> tuple[list[str], Any]:
    try:
        return [], OmegaConf.merge(merged, {key: as_meant(schema, key, value)})
    except ConfigKeyError as error:
        return [_no_such_option(error, schema, where)], merged
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        path = getattr(error, "full_key", None) or key
        reason = str(error).splitlines()[0].rstrip(".")
        return [f"{where}.{path}: {reason}. It takes {type_name(schema, key)}."], merged


def _no_such_option(error: ConfigKeyError, schema: type, where: str) -> str:
    path = str(error.full_key)
    owner = error.object_type if is_dataclass(error.object_type) else schema
    options = [field.name for field in fields(owner)]
    suggestion = did_you_mean(path.rsplit(".", 1)[-1], options)
    return f"{where}.{path}: no such option.{suggestion}\n  options: {', '.join(options) or 'none'}"


def unreadable(value: Any, where: str) -> list[str]:
    """Name everything in a tree of plain values that is not a plain value."""
    if isinstance(value, Mapping):
        return [problem for key, inner in value.items() for problem in _unreadable_entry(key, inner, where)]
    if isinstance(value, list | tuple):
        return [problem for i, inner in enumerate(value) for problem in unreadable(inner, f"{where}[{i}]")]
    if isinstance(value, str) and "${" in value:
        return [f"{where}: interpolations are not read here ({value!r}). Write the value itself."]
    if isinstance(value, str) and value == "???":
        return [f"{where}: is left open (???). Write a value."]
    if isinstance(value, float) and math.isnan(value):
        return [f"{where}: is not a number (nan). Write a number or null."]
    return []


def _unreadable_entry(key: Any, value: Any, where: str) -> list[str]:
    path = f"{where}.{key}" if where else str(key)
    if not isinstance(key, str):
        return [f"{path}: a key must be a word, and YAML reads {key!r} here. Put it in quotes."]
    if key.startswith("_") and key.endswith("_"):
        return [f"{path}: class paths are not read here. Name a plugin: {{name: ...}}"]
    return unreadable(value, path)


def plain(config: Any) -> dict[str, Any]:
    """Return a typed config as a dict that YAML and JSON can hold."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def load_yaml(file: Path) -> dict[str, Any]:
    """Return a YAML file as plain values; duplicate keys and Python tags are refused.

    Raises:
        ConfigError: the file is not there, is a folder, is empty or is no mapping.
    """
    if not file.exists():
        near = did_you_mean(file.name, [other.name for other in file.parent.glob("*.y*ml")])
        raise ConfigError(f"{file}: there is no such file.{near}")
    if file.is_dir():
        raise ConfigError(f"{file}: is a folder. Name a YAML file in it.")
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except YAMLError as error:
        raise ConfigError(f"{file}{_place(error)}: {_reason(error)}. Mend the YAML.") from None
    except (OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file}: cannot be read as YAML: {str(error).splitlines()[0]}") from None
    if not loaded:
        raise ConfigError(f"{file}: is empty. It should be an experiment: name, data, parts, stages.")
    if not isinstance(loaded, dict):
        raise ConfigError(f"{file}: is a list. Write a mapping: name, data, parts, stages.")
    return {key: value for key, value in loaded.items()}  # type: ignore[misc]  # keys are checked by unreadable


def _place(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark else ""


def _reason(error: YAMLError) -> str:
    reason = getattr(error, "problem", None) or "is no YAML"
    return f"tags are not read here ({reason})" if "tag" in reason else str(reason)


def parse_word(word: str) -> tuple[str, Any]:
    """Split ``a.b=c`` into its path and its value, read as YAML.

    Raises:
        ConfigError: there is no ``=``, no path before it, or no YAML after it.
    """
    path, equals, text = word.partition("=")
    if not equals or not path or not all(path.split(".")):
        raise ConfigError(f"'{word}' on the command line: write option=value, as in backbone.rank=8.")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    except (YAMLError, OmegaConfBaseException):
        raise ConfigError(f"'{word}' on the command line: the value is no YAML. Put it in quotes.") from None
    return path, value["value"]  # type: ignore[index,call-overload]


def refuse(problems: list[str], heading: str = "", error: type[AnastyleError] = ConfigError) -> None:
    """Raise one error for all problems, in at most five lines; none, none.

    A single problem comes whole, behind its heading; of several, each gives its first line.
    """
    if not problems:
        return
    prefix = f"{heading}: " if heading else ""
    if len(problems) == 1:
        raise error(prefix + problems[0])
    first_lines = [problem.splitlines()[0] for problem in problems]
    raise error(f"{prefix}{len(problems)} problems\n{listing(first_lines)}")


def refuse_below(settings: Any, **least: float) -> None:
    """Raise ConfigError for the first option that is below its least value."""
    for option, bound in least.items():
        if getattr(settings, option) < bound:
            raise ConfigError(f"{option}={getattr(settings, option)}: must be at least {bound}.")
