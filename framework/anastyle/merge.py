"""How the layers of an experiment become one: base, file, variant, command line. A later value wins.

Five rules: mappings merge; a section that names another component starts from that component's defaults; a section,
a stage or a variant can be set to null; a loss weight set to null is gone; everything else is replaced.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import reduce
from typing import Any

PARTS = ("autoencoder", "encoder", "embedder", "aligner", "fuser", "backbone")
SECTIONS = ("data", *PARTS, "stages")
READ_AS = ("root", "image_size", "captions", "on_bad_shard")  # of the data section; they outlive a change of dataset

Layer = dict[str, Any]


def merge(*layers: Layer) -> Layer:
    """Lay experiments, or variants of one, over each other."""
    return reduce(_merge_two, layers, {})


def _merge_two(old: Layer, new: Layer) -> Layer:
    merged = deepcopy(old)
    for key, value in new.items():
        merged[key] = _rule(key)(merged.get(key), value)
    return merged


def _rule(key: str) -> Any:
    if key in PARTS:
        return merge_part
    rows = {"variants": merge_variants, "references": merge_variants}
    return {"data": merge_data, "stages": deep, "sweep": deep, **rows}.get(key, replace)


def replace(_old: Any, new: Any) -> Any:
    """The later value wins whole."""
    return deepcopy(new)


def deep(old: Any, new: Any) -> Any:
    """Mappings merge key by key, everything else is replaced."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return deepcopy(new)
    return {**deepcopy(old), **{key: deep(old.get(key), value) for key, value in new.items()}}


def merge_part(old: Any, new: Any) -> Any:
    """Another name starts from that component's defaults: the old one's options would mean nothing to it."""
    if isinstance(old, Mapping) and isinstance(new, Mapping) and new.get("name", old.get("name")) != old.get("name"):
        return deepcopy(new)
    return deep(old, new)


def merge_data(old: Any, new: Any) -> Any:
    """Another dataset, or a prepared folder, takes the place of the old source; how it is read stays."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return deepcopy(new)
    read_as = {key: value for key, value in old.items() if key in READ_AS and key != "root"}
    if new.get("root") is not None and new.get("name") is None:
        return {**read_as, **new}
    if new.get("name") is not None and new["name"] != old.get("name"):
        return {**read_as, **new}
    return deep(old, new)


def without_null_weights(stages: Any) -> Any:
    """Drop the loss weights that a layer set to null; done once, when all layers are laid."""
    if not isinstance(stages, Mapping):
        return stages
    settled = deepcopy(dict(stages))
    for stage in settled.values():
        if isinstance(stage, dict) and isinstance(stage.get("weights"), Mapping):
            stage["weights"] = {term: weight for term, weight in stage["weights"].items() if weight is not None}
    return settled


def merge_variants(old: Any, new: Any) -> Any:
    """Variants of one name merge as layers; one that is null is dropped."""
    if not isinstance(new, Mapping):
        return deepcopy(new)
    merged = dict(old) if isinstance(old, Mapping) else {}
    for name, variant in new.items():
        earlier = merged.get(name)
        if isinstance(earlier, dict) and isinstance(variant, dict):
            merged[name] = merge(earlier, variant)
        else:
            merged[name] = deepcopy(variant)
    return {name: variant for name, variant in merged.items() if variant is not None}
