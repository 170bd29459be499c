"""``anastyle export``: a finished run in formats that other programs load, each read back and compared."""

from pathlib import Path

from anastyle.checkpoint import write_folder
from anastyle.devices import use_all_cores
from anastyle.errors import ConfigError, DataError, GateError
from anastyle.evaluation.memorisation.record import SHEET, Memorisation, read
from anastyle.painting.card import card
from anastyle.painting.finished import FinishedRun


def export_run(folder: Path, out: Path, kind: str | None = None, *, accept_risk: str | None = None) -> str:
    """Write a run into a new folder, a subfolder for each format, and a model card; return what was done, in two lines.

    The folder appears when every format has been read back and gave the run's own outputs; before, there is nothing.

    Arguments:
        kind: one format; None: all that the run's backbone has.
        accept_risk: why a model that copies its training images is exported nevertheless; the card says so.

    Raises:
        ConfigError: the run's backbone has no such format, or the reason is empty.
        GateError: the model copies its training images, and no reason is given.
        DataError: ``out`` is in the way.
        NumericalError: what was read back differs.
    """
    run = FinishedRun.open(folder)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out}: is in the way, and nothing is overwritten. Name a folder that is not there yet.")
    found = admitted(run, accept_risk)
    use_all_cores()
    chain = run.chain()
    backbone = run.config["backbone"]["name"]
    formats = chain.backbone.exports
    if not formats:
        raise ConfigError(f"{run.name}: backbone '{backbone}' offers no format to export to.")
    if kind is not None and kind not in formats:
        raise ConfigError(
            f"{run.name}: backbone '{backbone}', as it was trained, has no format '{kind}'.\n"
            f"  formats: {', '.join(formats)}"
        )
    chosen = [name for name in formats if kind in (None, name)]
    with write_folder(out) as temporary:
        for name in chosen:
            chain.backbone.export(name, temporary / name, chain)
        (temporary / "README.md").write_text(card(run, chosen, found, accept_risk), encoding="utf-8")
    known = f"{found.verdict}, {found.reason}" if found else "was not measured; the card says so"
    return (
        f"{out}: {', '.join(chosen)}, each read back and found equal; README.md is the model card.\n"
        f"Memorisation: {known}."
    )


def admitted(run: FinishedRun, accept_risk: str | None) -> Memorisation | None:
    """Return what is known of a run's memorisation, and refuse a run that failed unless somebody says why not."""
    if accept_risk is not None and not accept_risk.strip():
        raise ConfigError('--accept-risk: is empty. Say why: --accept-risk "the training set is public".')
    found = read(run.stored("evaluate")) if "evaluate" in run.stages else None
    if found and found.verdict == "failed" and accept_risk is None:
        raise GateError(
            f"{run.name}: is not exported, because it copies its training images.\n"
            f"  {found.reason}\n"
            f"  the pairs that look most alike: {run.stored('evaluate') / SHEET}\n"
            "Train it for fewer steps or on more images; or accept it, and the card says why: --accept-risk REASON"
        )
    return found
