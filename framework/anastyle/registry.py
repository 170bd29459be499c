"""Components by name. A plugin's name is its file's name; listing reads folders and imports nothing.

Built-in plugins lie in ``anastyle_plugins/<kind>s/``. A third party announces a package of the same shape by one
entry point: ``[project.entry-points."anastyle.plugins"] mylab = "mylab_plugins"``.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from anastyle.errors import ConfigError, did_you_mean

T = TypeVar("T", bound=type)
GROUP = "anastyle.plugins"
BUILT_IN = "anastyle_plugins"


def packages() -> list[str]:
    """Name the packages that hold plugins, the built-in one first."""
    return [BUILT_IN, *_announced(entry_points, tuple(sys.path))]


@cache
def _announced(find: Callable[..., Any], path: tuple[str, ...]) -> list[str]:
    """Name the packages that others announce; what is installed is read once, for it takes a while."""
    return sorted({point.value for point in find(group=GROUP)} - {BUILT_IN})


def package_folder(package: str) -> Path:
    """Return where a plugin package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"entry point {GROUP}: no package '{package}'. Reinstall or remove what announces it.")
    return Path(next(iter(spec.submodule_search_locations)))


@dataclass
class Registry:
    """The components of one kind."""

    kind: str  # "fuser"
    base: str  # the interface's name in anastyle

    def __post_init__(self) -> None:
        self._classes: dict[str, type] = {}

    @property
    def folder(self) -> str:
        """The folder, in each plugin package, that holds this kind."""
        return f"{self.kind}s"

    def modules(self) -> dict[str, str]:
        """Map each plugin's name to its module, by reading folders."""
        found: dict[str, str] = {}
        for package in packages():
            for file in sorted((package_folder(package) / self.folder).glob("*.py")):
                if file.stem.startswith("_"):
                    continue
                module = f"{package}.{self.folder}.{file.stem}"
                if file.stem in found:
                    raise ConfigError(
                        f"two {self.folder} are called '{file.stem}': {found[file.stem]} and {module}. Rename one file."
                    )
                found[file.stem] = module
        return found

    def names(self) -> list[str]:
        """Name every plugin of this kind."""
        return sorted(self.modules())

    def register(self, cls: T) -> T:
        """Class decorator: this class is the plugin its file is named after."""
        interface = getattr(importlib.import_module("anastyle"), self.base)
        if not issubclass(cls, interface):
            raise TypeError(f"{cls.__name__} must subclass {self.base} to be a {self.kind}")
        self._classes[cls.__module__] = cls
        return cls

    def get(self, name: str) -> Any:
        """Import the plugin and return its class.

        Raises:
            ConfigError: no plugin has this name, or its file registers none or cannot be imported.
        """
        modules = self.modules()
        if name not in modules:
            known = ", ".join(sorted(modules)) or "none"
            raise ConfigError(f"there is no {self.kind} '{name}'.{did_you_mean(name, modules)}\n  available: {known}")
        module = modules[name]
        try:
            importlib.import_module(module)
        except Exception as error:  # a plugin's file may raise anything
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ConfigError(
                f"{self.kind} '{name}' cannot be imported, {module}: {reason}\n"
                "  Mend it or install what it needs; --debug before the verb shows where it fails."
            ) from error
        if module not in self._classes:
            file = sys.modules[module].__file__
            how = f"Decorate its class with @{self.kind.upper()}S.register"
            raise ConfigError(f"{file} registers no {self.kind}. {how}")
        return self._classes[module]


ENCODERS = Registry("encoder", "Encoder")
EMBEDDERS = Registry("embedder", "Embedder")
ALIGNERS = Registry("aligner", "Aligner")
FUSERS = Registry("fuser", "Fuser")
BACKBONES = Registry("backbone", "Backbone")
AUTOENCODERS = Registry("autoencoder", "Autoencoder")
DATASETS = Registry("dataset", "Dataset")
FEATURES = Registry("feature", "Feature")
CAPTIONERS = Registry("captioner", "Captioner")

REGISTRIES = {
    registry.kind: registry
    for registry in (ENCODERS, EMBEDDERS, ALIGNERS, FUSERS, BACKBONES, AUTOENCODERS, DATASETS, FEATURES, CAPTIONERS)
}
