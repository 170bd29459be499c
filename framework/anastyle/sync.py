"""What ``anastyle sync`` does: tell MLflow what run folders hold and it was not told, after an outage or a kill."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anastyle.errors import ConfigError, MissingError
from anastyle.mlflow_link import Link
from anastyle.mlflow_runs import push
from anastyle.outbox import Outbox

PATIENCE = 60.0  # seconds to wait for another process that is sending


def sync(places: Sequence[Path], say: Callable[[str], None]) -> None:
    """Send what is not yet sent, to ``MLFLOW_TRACKING_URI``, or else to where each run was going.

    Arguments:
        places: runs, studies, or a folder of studies.
        say: is told of each run.

    Raises:
        ConfigError: there is no tracked run in a place.
        MissingError: MLflow is not there; names it, and how many runs have something left to tell.
    """
    links: dict[tuple[Path, str, str | None], Link] = {}
    left: list[Path] = []
    for folder in found(places):
        about = Outbox(folder).read()
        link = links.setdefault(*_link_of(folder, about))
        sent = None if link.outages else push(folder, link, patience=PATIENCE)
        if sent is None and not link.outages:
            say(f"{about['name']}: left out, another process is sending or a file is locked")
        elif sent is None:
            left.append(folder)
        else:
            say(f"{about['name']}: {_counted(sent)}")
    failed = [link for link in links.values() if link.outages]
    if failed:
        raise MissingError(
            f"MLflow at {failed[0].address} failed: {failed[0].reason}\n"
            f"  {len(left)} of the runs may have something left to tell. Try again when it is there, or set "
            "MLFLOW_TRACKING_URI."
        )


def found(places: Sequence[Path]) -> list[Path]:
    """Return the folders of tracked runs in some places, studies before their runs.

    Raises:
        ConfigError: there is none in one of them.
    """
    folders: dict[Path, None] = {}
    for place in places:
        files = [file for depth in range(4) for file in sorted(place.glob("*/" * depth + "outbox.json"))]
        if not files:
            raise ConfigError(f"{place}: no run was tracked here. Name a run, a study, or the folder of studies.")
        folders.update(dict.fromkeys(file.parent.resolve() for file in files))
    return list(folders)


def _link_of(folder: Path, about: dict[str, Any]) -> tuple[tuple[Path, str, str | None], Link]:
    study = folder.parent.parent if about.get("child") else folder
    server = os.environ.get("MLFLOW_TRACKING_URI") or about.get("server")
    aim = (study.parent, about["experiment"], server)
    return aim, Link(study.parent, about["experiment"], server=server)


def _counted(sent: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what} sent" for what, count in sent.items()) or "nothing left to send"
