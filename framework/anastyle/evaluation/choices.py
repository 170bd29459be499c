"""The words after ``anastyle evaluate REAL GENERATED``: which features, which weights, resized how, written where."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from anastyle.config import parse_word, section, typed
from anastyle.errors import ConfigError, did_you_mean
from anastyle.evaluation.resizing import Resize
from anastyle.interfaces import Feature
from anastyle.registry import FEATURES

SHIPPED = ["highfreq", "colour"]  # features that need no weights
COMMON = "feature"  # feature.path=...: of the one network that is named


@dataclass
class Choices:
    """A person's choices; options of the networks stand apart."""

    features: list[str] = field(default_factory=lambda: list(SHIPPED))
    train: Path | None = None
    """The images the generating model was trained on: the generated ones are searched for copies of them."""
    output: Path = Path("evaluation")
    cache: Path | None = None
    """Where features are kept; None: in ``output``."""
    resize: Resize | None = None
    """How each network brings images to its own size; None: as its own default is."""
    max_side: int = 256
    """Images are brought down to this many pixels a side, before any network sees them."""
    draws: int = 200
    """Half-samples behind an interval; 0: no intervals."""
    floor: bool = True
    """Keep half of the real images for the floor; else all are measured against, and there is none."""

    def __post_init__(self) -> None:
        if not self.features or len(set(self.features)) < len(self.features):
            raise ConfigError(f"features={self.features}: name one or more, each once.")
        if self.draws < 0 or self.max_side < 16:
            raise ConfigError(f"draws={self.draws}, max_side={self.max_side}: draws is 0 or more, max_side 16 or more.")


@dataclass
class Wish:
    """What the words after the two folders ask for."""

    choices: Choices
    options: dict[str, dict[str, Any]]  # of networks, by name

    def networks(self) -> dict[str, Feature]:
        """Build the networks that are named.

        Raises:
            ConfigError: there is no such network, or it has no such option.
            MissingError: its weights are not here.
        """
        made, resize = {}, self.choices.resize
        resizing = [name for name in self.choices.features if "resize" in options_of(name)]
        if resize is not None and not resizing:
            raise ConfigError(
                f"resize={resize}: {', '.join(self.choices.features)} take images at any size and resize none.\n"
                "  Name features that do: features=inception"
            )
        for name in self.choices.features:
            chosen = {"resize": resize} if resize is not None and name in resizing else {}
            cls, config = section(FEATURES, {"name": name, **chosen, **self.options.get(name, {})}, name)
            made[name] = cls(config)
        return made


def read_choices(words: list[str]) -> Wish:
    """Return what words such as ``features=[inception,highfreq]`` and ``inception.path=...`` ask for.

    Raises:
        ConfigError: a word that is no option, or an option of a network that is not named.
    """
    plain: dict[str, Any] = {}
    dotted: dict[str, Any] = {}
    for word in words:
        path, value = parse_word(word)
        (dotted if "." in path else plain)[path] = value
    if isinstance(plain.get("features"), str):
        plain["features"] = [plain["features"]]
    choices = typed(Choices, plain, "evaluate")
    return Wish(choices, by_network(dotted, choices.features))


def by_network(dotted: Mapping[str, Any], names: list[str]) -> dict[str, dict[str, Any]]:
    """Return options such as ``inception.path`` by network; ``feature.path`` is the only network's."""
    found: dict[str, dict[str, Any]] = {}
    for path, value in dotted.items():
        name, _, option = path.partition(".")
        if name == COMMON and len(names) > 1:
            which = " or ".join(f"{name}.{option}" for name in names)
            raise ConfigError(f"{path}: of which network? Write {which}.")
        if name not in (COMMON, *names):
            raise ConfigError(f"{path}: features={names} does not name '{name}'.{did_you_mean(name, [COMMON, *names])}")
        found.setdefault(names[0] if name == COMMON else name, {})[option] = value
    return found


def options_of(name: str) -> list[str]:
    """Name a network's options."""
    return [option.name for option in fields(FEATURES.get(name).Config)]
