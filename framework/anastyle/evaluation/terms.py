"""The terms of one row: what it trains and sees, what its backbone attends to and had read before, how it is guided."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn

from anastyle.accounting.params import count, named, parts
from anastyle.config import section, typed
from anastyle.experiment import Config, Run
from anastyle.interfaces import Condition, Embedded, FactorDims, Factors, Keep, Reading, fused_dims
from anastyle.merge import PARTS
from anastyle.plan import active
from anastyle.registry import BACKBONES, EMBEDDERS, FUSERS
from anastyle.stages import PLANS
from anastyle.stages.settings import schema

OWN_WORDS, NEW_WORDS, NOTHING = "its own words", "new words", "nothing, from scratch"
INTERFACE = ("aligner", "fuser")  # what lies between words and backbone


class Seen(NamedTuple):
    """What a training stage goes through."""

    steps: int | None  # None: so many epochs of a set that is not there yet
    images: int | None
    epochs: float | None = None

    def __str__(self) -> str:
        if self.steps is None:
            return f"{self.epochs:g} epochs"
        return f"{self.steps:,} steps, {self.images:,} images"


class Dropped(NamedTuple):
    """Shares of training captions of which a row is shown less."""

    whole: float  # nothing is shown
    anatomy: float  # style alone is shown
    style: float  # anatomy alone is shown

    def __str__(self) -> str:
        return " / ".join(f"{share:.2f}" for share in self)


@dataclass(frozen=True)
class Terms:
    """One row's terms."""

    name: str
    trains: dict[str, int]  # part -> trained parameters
    interface: int  # of these between words and backbone, learned nulls left out
    whole: bool  # does it train every weight of its backbone, which then is its own interface?
    seen: dict[str, Seen]  # training stage -> what it goes through
    tokens: str  # that the backbone attends to
    base: str  # what that had been taught to read before
    dropped: Dropped | None  # None: nothing is trained with captions
    guidance: str  # how it is found
    named: frozenset[str]  # sections that the row's own layer names
    reference: bool = False
    found: str = ""  # the guidance it painted with
    minutes: float | None = None  # of training


def terms(run: Run, layer: Mapping[str, Any], examples: int | None, *, reference: bool = False) -> Terms:
    """Return one row's terms."""
    sections = {part: run.config[part] for part in PARTS} | {"data": {"image_size": run.config["data"]["image_size"]}}
    built, stages = _built(json.dumps(sections, sort_keys=True)), active(run)
    trains = {part: count(built[part], trained=True) for part in trained(run.config, stages) if built.get(part)}
    free = {part: number - named(built[part], "null") for part, number in trains.items() if part in INTERFACE}
    interface = sum(max(0, number) for number in free.values())
    return Terms(
        name=run.variant,
        trains=trains,
        interface=interface,
        whole=trains.get("backbone") == count(built["backbone"]),
        seen={stage: seen(run, stage, examples) for stage in stages if PLANS[stage].trained},
        tokens=tokens(built),
        base=taught(run.config, interface),
        dropped=dropped(run.config, built) if "diffuse" in stages else None,
        guidance=guided(run.config, stages),
        named=named_by(layer),
        reference=reference,
    )


@lru_cache(maxsize=32)
def _built(config: str) -> dict[str, nn.Module]:
    """Return a row's parts on the meta device; they are built once."""
    return {kind: part.eval() for kind, part in parts(Run("", "", 0, json.loads(config))).items()}


def trained(config: Config, stages: Sequence[str]) -> list[str]:
    """Name the parts that some stage of a run trains."""
    own = {"autoencode": ["autoencoder"], "disentangle": ["encoder"], "align": ["aligner"],
           "diffuse": ["fuser", "backbone"]}  # fmt: skip
    found = [part for stage in stages for part in own.get(stage, [])]
    if "diffuse" in stages and "align" not in found and "aligner" not in found:
        found.append("aligner")  # one that no align stage trains learns there, if anywhere
    return [part for part in PARTS if part in found]


def seen(run: Run, stage: str, examples: int | None) -> Seen:
    """Return what a training stage goes through."""
    settings = typed(schema(stage), run.config["stages"][stage], f"stages.{stage}")
    if settings.epochs is not None and examples is None:
        return Seen(None, None, settings.epochs)
    steps = settings.total(examples or 0)
    return Seen(steps, steps * settings.batch_size * settings.accumulate)


@torch.no_grad()
def tokens(built: Mapping[str, Any]) -> str:
    """Return how many tokens the backbone attends to: a number, or as many as there are words."""
    dims = built["embedder"].dims

    def asked(words: int) -> int:
        said = torch.empty(1, words, dims.token, device="meta")
        mask = torch.ones(1, words, dtype=torch.bool, device="meta")
        embedded = Embedded(said, mask, torch.empty(1, dims.pooled, device="meta"))
        return built["fuser"](built["aligner"](embedded)).tokens.shape[1]

    if asked(8) == asked(16):
        return str(asked(8))
    longest = getattr(built["embedder"].config, "max_tokens", None)
    return f"one a word, at most {longest}" if longest else "one a word"


def taught(config: Config, interface: int) -> str:
    """Return what a row's base had been taught to read of what the row shows it."""
    backbone, options = section(BACKBONES, config["backbone"], "backbone")
    if not backbone.checkpoints(options):
        return NOTHING
    embedder, wording = section(EMBEDDERS, config["embedder"], "embedder")
    read, written = backbone.language(options), embedder.language(wording)
    plain = not interface and "factors" not in FUSERS.get(config["fuser"]["name"]).needs
    return OWN_WORDS if plain and read and read == written else NEW_WORDS


def dropped(config: Config, built: Mapping[str, Any]) -> Dropped:
    """Return of how many captions a row is shown less, as its fuser takes what the diffuse stage withholds."""
    chosen = config["stages"]["diffuse"]
    shares = {"neither": chosen["drop_both"], "style": chosen["drop_anatomy"], "anatomy": chosen["drop_style"]}
    shown = withheld(config, built)
    totals = [sum(share for asked, share in shares.items() if shown[asked] == seen) for seen in shares]
    return Dropped(*totals)


@torch.no_grad()
def withheld(config: Config, built: Mapping[str, Any]) -> dict[str, str]:
    """Return what a fuser shows when it is asked for one factor, or for neither: ``both``, one of them, ``neither``.

    Found by asking: the fuser is built, moved off its initial weights, and shown one reading.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text, backbone = built["embedder"].dims, built["backbone"]
        cls, options = section(FUSERS, config["fuser"], "fuser")
        fuser = cls(options, text=text, dims=dims_of(built), width=backbone.width).eval()
        for parameter in fuser.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        reading = drawn(built)
        yes, no = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
        keeps = {"both": (yes, yes), "anatomy": (yes, no), "style": (no, yes), "neither": (no, no)}
        try:
            asked = {name: fuser(reading, Keep(*keep)) for name, keep in keeps.items()}
        except ValueError:  # it has to read the empty caption first
            fuser.settle(Wordless(built), Readout(built))
            asked = {name: fuser(reading, Keep(*keep)) for name, keep in keeps.items()}
    alike = {name: next(other for other in ("both", "neither", name) if same(asked[name], asked[other]))
             for name in ("anatomy", "style")}  # fmt: skip
    return {**alike, "neither": "neither"}


def dims_of(built: Mapping[str, Any]) -> FactorDims | None:
    """Return the dims of the factors that reach a row's fuser."""
    return fused_dims(built.get("encoder"), built.get("aligner"))


def drawn(built: Mapping[str, Any]) -> Reading:
    """Return one reading of random numbers, in the shapes of a row's own."""
    dims, text = dims_of(built), built["embedder"].dims
    factors = Factors(*(torch.randn(1, *shape) for shape in dims)) if dims else None
    return Reading(
        factors, torch.randn(1, 5, text.token), torch.ones(1, 5, dtype=torch.bool), torch.randn(1, text.pooled)
    )


class Wordless:
    """Stands for an embedder that is asked what it makes of the empty caption."""

    def __init__(self, built: Mapping[str, Any]) -> None:
        self.built = built

    def embed(self, captions: list[str]) -> Embedded:
        """Return random numbers."""
        said = drawn(self.built)
        assert said.tokens is not None
        assert said.mask is not None
        assert said.pooled is not None
        return Embedded(said.tokens, said.mask, said.pooled)


class Readout(nn.Module):
    """Stands for an aligner without weights that hands tokens on."""

    def __init__(self, built: Mapping[str, Any]) -> None:
        super().__init__()
        self.factors = drawn(built).factors

    def forward(self, embedded: Embedded) -> Reading:
        """Return them."""
        return Reading(self.factors, embedded.tokens, embedded.mask, embedded.pooled)


def same(one: Condition, other: Condition) -> bool:
    """Say whether two conditions show a backbone the same."""
    return torch.equal(one.mask, other.mask) and torch.equal(one.tokens, other.tokens)


def guided(config: Config, stages: Sequence[str]) -> str:
    """Say how a row's guidance is found."""
    if "validate" not in stages:
        return f"{config['stages']['generate']['guidance']:g}, the file's"
    chosen = config["stages"]["validate"]
    tried = ", ".join(f"{one:g}" for one in chosen["guidance"])
    return f"the best of {tried} on validation captions"


def named_by(layer: Mapping[str, Any]) -> frozenset[str]:
    """Name the sections, and the stages, that a row's own layer speaks of."""
    stages = layer.get("stages")
    inner = [f"stages.{stage}" for stage in stages] if isinstance(stages, Mapping) else []
    return frozenset([*(key for key in layer if key != "stages"), *inner])
