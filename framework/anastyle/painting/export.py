"""``anastyle export``: a finished run in formats that other programs load, each read back and compared."""

from pathlib import Path

from anastyle.checkpoint import write_folder
from anastyle.devices import use_all_cores
from anastyle.errors import ConfigError, DataError
from anastyle.painting.card import card
from anastyle.painting.finished import FinishedRun


def export_run(folder: Path, out: Path, kind: str | None = None) -> str:
    """Write a run into a new folder, a subfolder for each format, and a model card; return what was done, in a line.

    The folder appears when every format has been read back and gave the run's own outputs; before, there is nothing.

    Arguments:
        kind: one format; None: all that the run's backbone has.

    Raises:
        ConfigError: the run's backbone has no such format.
        DataError: ``out`` is in the way.
        NumericalError: what was read back differs.
    """
    run = FinishedRun.open(folder)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out}: is in the way, and nothing is overwritten. Name a folder that is not there yet.")
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
        (temporary / "README.md").write_text(card(run, chosen), encoding="utf-8")
    return f"{out}: {', '.join(chosen)}, each read back and found equal; README.md is the model card."
