"""What ``anastyle fetch`` does: download the pretrained weights of an experiment, on a machine with a network.

Into the hub's cache, where runs on this machine find them; or with ``--to`` into a plain folder, to be carried to a
machine without a network, where ``ANASTYLE_WEIGHTS`` names it.
"""

from pathlib import Path

from anastyle.config import parse_word, section
from anastyle.errors import ConfigError, DataError, MissingError, did_you_mean
from anastyle.experiment import Experiment
from anastyle.merge import PARTS
from anastyle.registry import REGISTRIES
from anastyle.weights import HOME, Checkpoint, choices, is_id, lacking, named, place, shards


def wanted(experiment: Experiment) -> list[Checkpoint]:
    """Return the checkpoints that the variants of an experiment ask for, each once."""
    found: dict[Checkpoint, None] = {}
    for config in experiment.variants.values():
        for part in PARTS:
            if config[part] is not None:
                cls, chosen = section(REGISTRIES[part], config[part], part)
                found.update(dict.fromkeys(cls.checkpoints(chosen)))
    return list(found)


def of_plugin(name: str, words: list[str]) -> list[Checkpoint]:
    """Return the checkpoints of one plugin, ``words`` its options."""
    kind = next((kind for kind, registry in REGISTRIES.items() if name in registry.names()), None)
    if kind is None:
        known = [name for registry in REGISTRIES.values() for name in registry.names()]
        raise ConfigError(f"fetch: '{name}' is neither an experiment file nor a plugin.{did_you_mean(name, known)}")
    cls, config = section(REGISTRIES[kind], {"name": name, **dict(parse_word(word) for word in words)}, kind)
    return cls.checkpoints(config) if hasattr(cls, "checkpoints") else []  # a dataset has none


def fetch(checkpoints: list[Checkpoint], to: Path | None) -> str:
    """Download what is not here yet, and say where everything lies.

    Raises:
        MissingError: a folder that is not whole, or a model the hub does not give.
    """
    lines = []
    for checkpoint in checkpoints:
        folder = place(checkpoint) if to is None or not is_id(checkpoint.path) else to / checkpoint.path
        missing = lacking(folder, checkpoint.files)
        if missing and not is_id(checkpoint.path):
            raise MissingError(f"{checkpoint.option}: {checkpoint.path} lacks {', '.join(missing)}. Check the path.")
        if missing:
            folder = download(checkpoint, to)
        lines.append(f"{checkpoint.path}: {'fetched into' if missing else 'is in'} {folder}")
    if to is not None:
        lines.append(f"On the other machine: {HOME}={to.name}, the folder's place there.")
    return "\n".join(lines) or "nothing to fetch: no part names pretrained weights."


def download(checkpoint: Checkpoint, to: Path | None) -> Path:
    """Download one checkpoint and return its folder; older ``.bin`` weights become safetensors here, once."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    path, revision = checkpoint.path, checkpoint.revision
    into = None if to is None else to / path
    try:
        there = set(huggingface_hub.HfApi().list_repo_files(path, revision=revision))
        names, pickled = choose(checkpoint, there)
        folder = Path(huggingface_hub.snapshot_download(path, revision=revision, allow_patterns=names, local_dir=into))
        if more := [shard for name in names for shard in shards(folder, name)]:
            huggingface_hub.snapshot_download(path, revision=revision, allow_patterns=more, local_dir=into)
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(f"{checkpoint.option}: {path} could not be downloaded: {reason}") from error
    for name in pickled:
        convert(folder / name, folder / safe_name(name))
    return folder


def choose(checkpoint: Checkpoint, there: set[str]) -> tuple[list[str], list[str]]:
    """Return which of a model's files to download, and which of those are pickles to convert.

    Raises:
        MissingError: the model on the hub lacks a file.
    """
    names, pickled, missing = [], [], []
    for file in checkpoint.files:
        name = next((name for name in choices(file) if name in there), None)
        old = next((pickle_name(name) for name in choices(file) if pickle_name(name) in there), None)
        if name is not None:
            names.append(name)
        elif old is not None:
            pickled.append(old)
        else:
            missing.append(named(file))
    if missing:
        raise MissingError(f"{checkpoint.option}: {checkpoint.path} has no {', '.join(missing)} on the hub.")
    optional = [name for file in checkpoint.optional for name in choices(file) if name in there]
    return [*names, *pickled, *optional], pickled


def pickle_name(name: str) -> str:
    """Return what a safetensors file was called as a pickle: "model.safetensors" was "pytorch_model.bin"."""
    path = Path(name)
    if path.suffix != ".safetensors":
        return ""
    return path.with_name("pytorch_model.bin" if path.stem == "model" else f"{path.stem}.bin").as_posix()


def safe_name(name: str) -> str:
    """Return what a pickle is called as safetensors."""
    path = Path(name)
    return path.with_name(
        "model.safetensors" if path.stem == "pytorch_model" else f"{path.stem}.safetensors"
    ).as_posix()


def convert(pickled: Path, safe: Path) -> None:
    """Write the tensors of a pickle as safetensors; the reader takes tensors alone and runs nothing.

    Raises:
        DataError: the pickle holds something else. It is removed.
    """
    import torch
    from safetensors.torch import save_file

    try:
        tensors = torch.load(pickled, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is in there, it is not tensors alone
        pickled.unlink()
        raise DataError(
            f"{pickled}: a pickle that holds more than tensors, or is broken; it was removed, and nothing of it ran.\n"
            "  Do not trust this model; take one whose weights are safetensors."
        ) from error
    partial = safe.with_name(f".{safe.name}.partial")
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, partial, {"format": "pt"})
    partial.replace(safe)
    pickled.unlink()
