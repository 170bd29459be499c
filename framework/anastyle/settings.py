"""What a person chooses about the data, the sampling and the measuring of a run; training has its own settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from anastyle.config import plain, read_section, read_typed, refuse_below
from anastyle.data.captions import BUILT_IN, NAME
from anastyle.errors import ConfigError, did_you_mean
from anastyle.registry import CAPTIONERS, DATASETS, FEATURES
from anastyle.sources import Captioner

ON_BAD_SHARD = ("refuse", "skip")


@dataclass
class DataSettings:
    """How any prepared set is read; the rest of the ``data`` section belongs to the dataset plugin it names."""

    root: str | None = None
    """A folder that ``anastyle prepare`` wrote; None: the named dataset is prepared on first use."""
    image_size: int = 64
    """Side in pixels that training resizes to."""
    captions: str = "attributes"
    """``attributes``, the captions as prepared; ``class_label``, the class name alone (the paper's row without
    attribute captioning); or the name of a table that ``anastyle caption`` wrote."""
    on_bad_shard: str = "refuse"
    """``skip`` goes on without shards that are missing, cut or changed; what was lost is counted in the report, and
    nothing learned from the whole set is taken for this."""

    def __post_init__(self) -> None:
        refuse_below(self, image_size=8)
        if self.on_bad_shard not in ON_BAD_SHARD:
            raise ConfigError(f"on_bad_shard={self.on_bad_shard}: must be one of {', '.join(ON_BAD_SHARD)}.")
        if not NAME.fullmatch(self.captions):
            raise ConfigError(f"captions={self.captions}: name {', '.join(BUILT_IN)}, or a caption table.")


@dataclass
class GenerateSettings:
    """What the generate stage paints for the evaluation."""

    images: int = 512
    steps: int = 20
    """Sampling steps."""
    guidance: float = 3.0
    """Weight of classifier-free guidance; 1 is none (Ho and Salimans 2022)."""
    batch_size: int = 64
    grid: int = 16
    """Images of the sample sheet; the same captions and noise in every variant."""
    swaps: int = 64
    """Pairs of captions whose anatomy and style are exchanged, for the leakage matrix: four images each. 0: none."""
    split: Literal["test", "validation"] = "test"
    """Whose captions are painted and measured. A sweep looks at validation, so that test is read once, at the end."""

    def __post_init__(self) -> None:
        refuse_below(self, images=1, steps=1, batch_size=1, guidance=0, grid=0, swaps=0)


@dataclass
class ValidateSettings:
    """How guidance and sampling steps are chosen, on captions that neither training nor the tables read.

    Without the stage, or on a set without a validation split, the generate stage's own settings hold.
    """

    images: int = 128
    """Validation captions, the first ones; each is painted once a candidate."""
    guidance: list[float] = field(default_factory=lambda: [1.5, 3.0, 5.0])
    """Candidates; of equals, the smaller. 1 costs half of any other."""
    steps: list[int] | None = None
    """Candidates of sampling steps: the fewest whose value lies within the best one's interval. None: generate's."""
    criterion: Literal["auto", "factor_mean", "faithful_mean", "kid"] = "auto"
    """``auto``: the judge's mean accuracy where factors are known, else what a captioner sees of what was asked where
    there are masks, else the kernel distance to the validation images."""
    start: bool = True
    """Paint the same captions from the same noise before diffuse has trained anything, too: a row that is no better
    than its own start measures its base, and the study says so."""
    batch_size: int = 64

    def __post_init__(self) -> None:
        refuse_below(self, images=1, batch_size=1)
        for name, least in (("guidance", 0), ("steps", 1)):
            chosen = getattr(self, name)
            if chosen is not None and not (chosen and all(value >= least for value in chosen)):
                raise ConfigError(f"{name}={chosen}: write a list of candidates, each at least {least}.")

    @property
    def candidates(self) -> int:
        """How many there are."""
        return len(set(self.guidance)) * len(set(self.steps or [0]))


@dataclass
class EvaluateSettings:
    """How the evaluate stage measures."""

    judge_steps: int = 600
    """Training steps of the factor judge."""
    domain_steps: int = 400
    """Training steps of the domain classifier whose features distances are measured on."""
    segmenter_steps: int = 300
    """Training steps of the segmenter that says where lesions are, on sets with masks and without known factors."""
    features: list[str] = field(default_factory=lambda: ["domain", "highfreq", "random_conv"])
    """Networks that distances are measured on: one taught by the data set's labels, and two that know none."""
    captioner: str = "template"
    """Whose attributes say whether images show what was asked, on such sets; empty: nobody's."""
    bootstrap: int = 200
    """Resamples behind an interval."""
    batch_size: int = 256
    memorisation: bool = True
    """Look for copies of training images; ``anastyle export`` refuses a run that fails."""
    utility: int = 0
    """Networks of each arm of the downstream comparison, real images with and without synthetic ones; three or more for
    an interval between trainings, 0 for no comparison."""
    utility_steps: int = 400
    """Training steps of each."""

    def __post_init__(self) -> None:
        refuse_below(
            self,
            judge_steps=1,
            domain_steps=1,
            segmenter_steps=6,
            bootstrap=0,
            batch_size=1,
            utility=0,
            utility_steps=6,
        )
        for name in self.features:
            if name not in FEATURES.names():
                near = did_you_mean(name, FEATURES.names())
                raise ConfigError(f"features: there is no '{name}'.{near} Choose of {', '.join(FEATURES.names())}.")
        if self.captioner and CAPTIONERS.get(self.captioner).attributes is Captioner.attributes:
            raise ConfigError(f"captioner={self.captioner}: tells no attributes. Choose another, template say.")


class Data(NamedTuple):
    """A ``data`` section, read."""

    settings: DataSettings
    name: str | None  # of the dataset plugin; None: a prepared folder, settings.root
    dataset: Any = None  # its class
    config: Any = None  # its typed options


def read_data(mapping: Any, where: str = "data") -> tuple[Data | None, list[str]]:
    """Return a ``data`` section, or None, and all its problems.

    ``image_size`` reaches a dataset that draws its images as well; what is not ours is the dataset's.
    """
    if not isinstance(mapping, Mapping):
        return None, [
            f"{where}: say which set: {{name: phantom}}, or {{root: a folder that `anastyle prepare` wrote}}."
        ]
    name, root = mapping.get("name"), mapping.get("root")
    if (name is None) == (root is None):
        found = "neither name nor root" if name is None else "both name and root"
        return None, [f"{where}: has {found}. Keep one: a dataset's name, or the folder of a prepared set."]
    own = [option.name for option in fields(DataSettings)]
    chosen = {key: value for key, value in mapping.items() if key in own}
    others = {key: value for key, value in mapping.items() if key not in own and key != "name"}
    if name is None:
        left = {key: value for key, value in others.items() if value is not None}  # a dataset's options, set to null
        settings, problems = read_typed(DataSettings, chosen | left, where)
        return (Data(settings, None), []) if settings else (None, problems)
    dataset, config, problems = read_section(DATASETS, {"name": name} | others | _shared(name, chosen), where)
    if config is not None:
        chosen = {key: value for key, value in plain(config).items() if key in own} | chosen
    settings, own_problems = read_typed(DataSettings, chosen, where)
    problems += [problem for problem in own_problems if problem not in problems]
    if problems or settings is None:
        return None, problems
    return Data(settings, name, dataset, config), []


def _shared(name: Any, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return those of our options that the dataset has as well."""
    if not isinstance(name, str) or name not in DATASETS.names():
        return {}
    theirs = {option.name for option in fields(DATASETS.get(name).Config)}
    return {key: value for key, value in chosen.items() if key in theirs}
