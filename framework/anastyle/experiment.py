"""An experiment file -> runs: base, variants, seeds and the command line, laid over each other and spelled out.

``references`` are rows like ``variants``, which stand beside them and compete with none: the base untuned, say.

Paths in a file are relative to where the program is started, except ``base``, which lies beside its file.
"""

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from anastyle.config import load_yaml, parse_word, plain, read_section, read_typed, refuse, unreadable
from anastyle.errors import ConfigError, did_you_mean
from anastyle.merge import PARTS, SECTIONS, deep, merge, without_null_weights
from anastyle.passwords import without_passwords
from anastyle.registry import REGISTRIES
from anastyle.settings import read_data
from anastyle.stages.settings import schema

STAGES = ("autoencode", "disentangle", "align", "diffuse", "validate", "generate", "evaluate")  # in this order
TOP = ("name", "description", "base", "output", "seeds", "only", *SECTIONS, "variants", "references", "sweep")
ROWS = ("variants", "references")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a study or a row: it becomes a folder
OWN = object()  # the base that the file itself names

Config = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One variant under one seed, spelled out."""

    study: str
    variant: str
    seed: int
    config: Config
    """Section -> its name and all its options, or None; ``stages`` -> stage -> all its settings, or None."""


@dataclass(frozen=True)
class Experiment:
    """What a file and a command line ask for."""

    name: str
    file: Path
    output: Path
    seeds: list[int]
    variants: dict[str, Config]
    """The chosen rows, each spelled out: variants, then references."""
    runs: list[Run]
    """Every variant of the first seed, then of the next: a whole table early."""
    description: str = ""
    sweep: Config | None = None
    overrides: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    """Those of the rows that are shown beside the others and not ranked."""
    layers: dict[str, Config] = field(default_factory=dict)
    """What the file itself says of each row: what sets it apart."""

    @property
    def folder(self) -> Path:
        """Where the study is kept."""
        return self.output / self.name

    def run_folder(self, run: Run) -> Path:
        """Return where one run is kept."""
        return self.folder / run.variant / f"seed-{run.seed}"

    def document(self) -> Config:
        """Return the whole experiment as a plain dict, every default written out, to be shown: without passwords."""
        head = {"name": self.name, "description": self.description, "output": str(self.output), "seeds": self.seeds}
        beside = {name: self.variants[name] for name in self.references}
        rows = {name: config for name, config in self.variants.items() if name not in beside}
        shown = {"variants": rows, **({"references": beside} if beside else {})}
        return without_passwords({**head, **shown, "sweep": self.sweep})

    @property
    def ranked(self) -> list[str]:
        """The rows that compete: all but the references."""
        return [name for name in self.variants if name not in self.references]


def read(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file, with ``a.b=c`` words as one more layer.

    Raises:
        ConfigError: the file is no experiment; all problems at once.
    """
    file = Path(path)
    typed_in = command_line(overrides)
    whole = merge(*_layers(file, typed_in.pop("base", OWN)), typed_in)
    heading = str(file)
    refuse(_shape_problems(whole), heading)
    chosen = _chosen(whole)
    on_top = {key: value for key, value in typed_in.items() if key in SECTIONS}
    shared = {key: value for key, value in whole.items() if key in SECTIONS}
    without = {name: merge(shared, variant) for name, variant in chosen.items()}
    with_words = {name: merge(config, _fitting(on_top, config, without)) for name, config in without.items()}
    for name in _lost(without, with_words):
        kept = _less(on_top, chosen[name])
        with_words[name] = merge(without[name], _fitting(kept, without[name], without))
    variants = _spelled_out(with_words, heading)
    name, seeds = whole.get("name") or file.stem, _seeds(whole)
    runs = [Run(name, variant, seed, deepcopy(config)) for seed in seeds for variant, config in variants.items()]
    return Experiment(
        name=name,
        file=file,
        output=Path(whole.get("output") or "runs").expanduser(),
        seeds=seeds,
        variants=variants,
        runs=runs,
        description=whole.get("description") or "",
        sweep=whole.get("sweep"),
        overrides=list(overrides),
        references=[name for name in variants if name != "default" and name in (whole.get("references") or {})],
        layers=chosen,
    )


def _lost(before: Mapping[str, Config], after: Mapping[str, Config]) -> list[str]:
    """Name the variants that words have made the same as another: what sets them apart is theirs to say."""
    return [
        name
        for name in after
        if any(after[name] == after[other] and before[name] != before[other] for other in after if other != name)
    ]


def _less(words: Config, variant: Mapping[str, Any]) -> Config:
    """Return words without those whose option a variant sets itself."""
    kept: Config = {}
    for key, value in words.items():
        own = variant.get(key)
        if key not in variant:
            kept[key] = value
        elif isinstance(value, dict) and isinstance(own, Mapping):
            kept[key] = _less(value, own)
    return kept


def _fitting(on_top: Config, config: Config, variants: Mapping[str, Config]) -> Config:
    """Return the typed-in options that concern this variant: its parts have them, or no variant's part does."""
    kept = deepcopy(on_top)
    for part in PARTS:
        options = kept.get(part)
        if not isinstance(options, dict) or "name" in options:
            continue
        others = [other.get(part) for other in variants.values()]
        for option in list(options):
            if not _has(part, config.get(part), option) and any(_has(part, other, option) for other in others):
                del options[option]
        if not options:
            del kept[part]
    return kept | _fitting_stages(kept, config, variants)


def _fitting_stages(on_top: Config, config: Config, variants: Mapping[str, Config]) -> Config:
    """Return the typed-in settings of stages without those of a stage that is off here and on in another row."""
    stages = on_top.get("stages")
    if not isinstance(stages, Mapping):
        return {}

    def on(row: Config, stage: str) -> bool:
        settings = row.get("stages")
        return isinstance(settings, Mapping) and settings.get(stage) is not None

    others = [other for other in variants.values() if other is not config]
    return {
        "stages": {
            stage: settings
            for stage, settings in stages.items()
            if on(config, stage) or not any(on(other, stage) for other in others)
        }
    }


def _has(part: str, section: Any, option: str) -> bool:
    """Say whether the component that a section names has an option."""
    if not isinstance(section, Mapping) or section.get("name") not in REGISTRIES[part].names():
        return False
    return option in {known.name for known in fields(REGISTRIES[part].get(section["name"]).Config)}


def command_line(words: Sequence[str]) -> Config:
    """Return ``a.b=c`` words as one layer.

    Raises:
        ConfigError: words without ``=``, unknown first parts, or values that are not plain; all at once.
    """
    layer: Config = {}
    problems = []
    for word in words:
        try:
            path, value = parse_word(word)
        except ConfigError as error:
            problems.append(str(error))
            continue
        first, *rest = path.split(".")
        problems += _unknown([first], TOP, "") + unreadable(value, path)
        for part in reversed(rest):
            value = {part: value}
        layer[first] = deep(layer.get(first), value)
    refuse(problems, "command line" if len(problems) > 1 else "")
    return layer


def _layers(file: Path, base: Any = OWN, above: tuple[Path, ...] = ()) -> list[Config]:
    """Return the file's own layer behind those of its bases; another ``base`` replaces the lowest of them.

    A file that stands on another's rows keeps them so, on other data.
    """
    if file.resolve() in above:
        chain = " -> ".join(other.name for other in (*above, file))
        raise ConfigError(f"{above[0]}: base goes round in a circle, {chain}. Drop one base.")
    layer = load_yaml(file)
    refuse(unreadable(layer, "") + _unknown(layer, TOP, ""), str(file))
    own = layer.pop("base", None)
    typed_in = base is not OWN
    if typed_in and isinstance(own, str) and load_yaml(file.parent / own).get("base") is not None:
        return [*_layers(file.parent / own, base, (*above, file.resolve())), layer]
    base = base if typed_in else own
    if base is None:
        return [layer]
    if not isinstance(base, str):
        raise ConfigError(f"{file}: base: name one YAML file that lies beside this one. Got {base!r}.")
    below = file.parent / base
    if typed_in and not below.exists() and Path(base).exists():  # typed from where the program is started
        below = Path(base)
    return [*_layers(below, OWN, (*above, file.resolve())), layer]


def _unknown(keys: Any, known: Sequence[str], where: str) -> list[str]:
    return [
        f"{where}{key}: no such section.{did_you_mean(str(key), known)}\n  sections: {', '.join(known)}"
        for key in keys
        if key not in known
    ]


def _shape_problems(whole: Config) -> list[str]:
    """Name what of the head, the variants and the stages has another form than it should."""
    problems = []
    for key in ("name", "description", "output"):
        if not isinstance(whole.get(key), str | None):
            problems.append(f"{key}: write text. Got {whole[key]!r}.")
    problems += _unlike_folders([whole.get("name")])
    for key in ROWS:
        problems += _row_problems(key, whole.get(key))
    if all(isinstance(whole.get(key), Mapping) for key in ROWS):
        twice = [name for name in whole["references"] if name in whole["variants"]]
        problems += [f"references.{name}: is a variant too. Keep one of the two, or rename it." for name in twice]
    if not isinstance(whole.get("sweep"), Mapping | None):
        problems.append(f"sweep: write a mapping. Got {whole['sweep']!r}.")
    try:
        _seeds(whole)
    except ConfigError as error:
        problems.append(str(error))
    return problems


def _row_problems(key: str, rows: Any) -> list[str]:
    """Name what of the variants, or of the references, has another form than it should."""
    if not isinstance(rows, Mapping | None):
        return [f"{key}: write a mapping of names and what they change. Got {rows!r}."]
    problems = _unlike_folders(rows or ())
    for name, row in (rows or {}).items():
        if isinstance(row, Mapping):
            problems += _unknown(row, SECTIONS, f"{key}.{name}.")
        else:
            problems.append(f"{key}.{name}: write a mapping, {{}} for no change. Got {row!r}.")
    return problems


def _unlike_folders(names: Any) -> list[str]:
    return [
        f"'{name}' becomes a folder: use letters, digits, '.', '_' and '-', a letter or digit first."
        for name in names
        if isinstance(name, str) and not NAME.fullmatch(name)
    ]


def _seeds(whole: Config) -> list[int]:
    seeds = whole.get("seeds", [42])
    seeds = [seeds] if isinstance(seeds, int) else seeds
    right = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    if not right or not seeds:
        raise ConfigError(f"seeds: write whole numbers from 0 to 2147483647, as in [42, 43]. Got {seeds!r}.")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds: one is there twice. Got {seeds!r}; keep each once.")
    return seeds


def _chosen(whole: Config) -> dict[str, Config]:
    """Return the rows that ``only`` asks for, references last; without variants, one that changes nothing.

    References stand beside variants: a file without the section has nothing to compare, and none are run.
    """
    rows, beside = whole.get("variants"), whole.get("references") or {}
    if rows is None:
        rows, beside = {"default": {}}, {}
    elif not (rows or beside):
        rows = {"default": {}}
    variants = {**rows, **beside}
    only = whole.get("only")
    if only is None:
        return variants
    asked = [only] if isinstance(only, str) else only
    if not isinstance(asked, list) or not asked:
        raise ConfigError(
            f"only: name a variant, a list of them, or null. Got {only!r}.\n  variants: {', '.join(variants)}"
        )
    for name in asked:
        if name not in variants:
            known = f"\n  variants: {', '.join(variants)}"
            raise ConfigError(f"only={name}: no such variant.{did_you_mean(str(name), variants)}{known}")
    return {name: variant for name, variant in variants.items() if name in asked}


def _spelled_out(variants: dict[str, Config], heading: str) -> dict[str, Config]:
    """Fill in every default of every variant; a problem that all variants share is told once."""
    seen: dict[str, tuple[Any, list[str]]] = {}
    complaints: dict[str, list[str]] = {}
    filled: dict[str, Config] = {}
    for name, config in variants.items():
        filled[name] = {}
        for section in SECTIONS:
            key = json.dumps([section, config.get(section)], sort_keys=True, default=str)
            if key not in seen:
                seen[key] = _fill(section, config.get(section))
            filled[name][section], problems = seen[key]
            for problem in problems:
                complaints.setdefault(problem, []).append(name)
    refuse([_for_variants(problem, names, variants) for problem, names in complaints.items()], heading)
    return filled


def _for_variants(problem: str, names: list[str], variants: Mapping[str, Any]) -> str:
    return problem if len(names) == len(variants) else f"variant {', '.join(names)}: {problem}"


def _fill(section: str, mapping: Any) -> tuple[Any, list[str]]:
    """Return one section with all its defaults, and its problems."""
    if section == "stages":
        return _fill_stages(without_null_weights(mapping))
    if section == "data":
        data, problems = read_data(mapping)
        if data is None:
            return None, problems
        options = plain(data.config) if data.config else {}
        return {"name": data.name, **options, **plain(data.settings)}, []
    if mapping is None:
        return None, []
    _, config, problems = read_section(REGISTRIES[section], mapping, section)
    return (None, problems) if problems else ({"name": mapping["name"], **plain(config)}, [])


def _fill_stages(mapping: Any) -> tuple[Config, list[str]]:
    if not isinstance(mapping, Mapping | None):
        return {}, [f"stages: write a mapping of stages. Got {mapping!r}."]
    stages = mapping or {}
    known = ", ".join(STAGES)
    problems = [
        f"stages.{name}: no such stage.{did_you_mean(str(name), STAGES)}\n  stages: {known}"
        for name in stages
        if name not in STAGES
    ]
    filled: Config = {}
    for name in STAGES:
        if stages.get(name) is None:
            filled[name] = None
            continue
        settings, more = read_typed(schema(name), stages[name], f"stages.{name}")
        filled[name] = plain(settings) if settings is not None else None
        problems += more
    return filled, problems
