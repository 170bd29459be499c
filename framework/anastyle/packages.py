"""What is installed beside us: versions below our floors, pairs that break each other, and the tested set."""

import importlib.metadata as metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

TESTED = Path(__file__).with_name("tested.txt")
WANTS_TORCHVISION = ("torch-fidelity", "clean-fid", "lpips")

Installed = Mapping[str, str]  # package -> version


class Finding(NamedTuple):
    """One line of an examination, with the way out where there is something to mend."""

    state: Literal["ok", "note", "problem"]
    text: str


def installed() -> dict[str, str]:
    """Return every installed package and its version."""
    return {canonicalize_name(one.metadata["Name"]): one.version for one in metadata.distributions() if one.metadata}


def floors() -> list[Requirement]:
    """Return what we need, as our own metadata says; empty where we run without having been installed."""
    try:
        stated = metadata.requires("anastyle") or []
    except metadata.PackageNotFoundError:
        return []
    wanted = [Requirement(line) for line in stated]
    return [need for need in wanted if need.marker is None or need.marker.evaluate({"extra": ""})]


def tested() -> dict[str, str]:
    """Return the versions that the tests ran with."""
    lines = [line.strip() for line in TESTED.read_text(encoding="utf-8").splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))  # type: ignore[arg-type]


def below(found: Installed, needed: list[Requirement]) -> list[Finding]:
    """Name what is missing, or older than a version whose features or security fixes we rely on."""
    names = {need: canonicalize_name(need.name) for need in needed}
    wrong = [need for need, name in names.items()
             if name not in found or not need.specifier.contains(found[name], prereleases=True)]  # fmt: skip
    if wrong:
        had = ", ".join(f"{need} (here: {found.get(names[need], 'none')})" for need in wrong)
        words = " ".join(f'"{need}"' for need in wrong)
        return [Finding("problem", f"needed, for features or security fixes: {had}. pip install {words}")]
    if not needed:
        return [Finding("note", "not installed as a package, so nothing here knows the versions it needs")]
    return [Finding("ok", f"{len(needed)} packages, none below its floor")]


def drift(found: Installed, known: Mapping[str, str]) -> list[Finding]:
    """Say how far the installation is from the tested set."""
    here = {name: found[canonicalize_name(name)] for name in known if canonicalize_name(name) in found}
    other = [f"{name} {version} (tested {known[name]})" for name, version in here.items()
             if Version(version).public != known[name]]  # fmt: skip
    if other:
        return [Finding("note", f"{len(here) - len(other)} packages as tested, {len(other)} not: {', '.join(other)}")]
    return [Finding("ok", f"the tested versions of {len(here)} packages")]


def pairs(found: Installed) -> list[Finding]:
    """Name packages that break the import of ours."""
    findings = []
    torch, torchvision = found.get("torch", ""), found.get("torchvision")
    if torchvision is not None and _build(torch) != _build(torchvision):
        text = f"torchvision {torchvision} beside torch {torch}: built for different devices, so transformers and "
        findings.append(Finding("problem", f"{text}diffusers fail at import. pip uninstall torchvision"))
    elif torchvision is not None:
        findings.append(Finding("note", f"torchvision {torchvision} is here; nothing of ours needs it"))
    if "timm" in found and torchvision is None:
        text = "timm without torchvision: accelerate launch fails at import. pip uninstall timm"
        findings.append(Finding("problem", text))
    for name in WANTS_TORCHVISION:
        if name in found and torchvision is None:
            text = f"{name} without torchvision: torchmetrics and others fail at import. pip uninstall {name}"
            findings.append(Finding("problem", text))
    return findings or [Finding("ok", "no packages that are known to break each other")]


def _build(version: str) -> str:
    """Return what a wheel was built for: "cpu", or "" for the default, which is a GPU."""
    local = Version(version).local if version else None
    return "cpu" if local == "cpu" else ""
