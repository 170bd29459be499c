"""``anastyle compare RUN...``: finished runs in one table, whichever studies they are from."""

from pathlib import Path

from anastyle.config import load_yaml
from anastyle.errors import ConfigError, MissingError
from anastyle.evaluation.difference_tables import compact, differences
from anastyle.evaluation.differences import Paired
from anastyle.evaluation.formats import markdown, write_tables
from anastyle.evaluation.measure import values_of
from anastyle.evaluation.overview import all_tables
from anastyle.evaluation.published import published
from anastyle.evaluation.samples import Row, samples_of
from anastyle.evaluation.tables import Ranking
from anastyle.painting.finished import FOLDER, FinishedRun


def compare(folders: list[Path], output: Path | None = None, beside: list[str] | None = None) -> str:
    """Return the tables of runs as Markdown; with ``output``, also write them as table.md, .csv and .tex.

    Numbers of another protocol than their column's first are marked and take no part in its ranking.

    Arguments:
        folders: runs, variants or studies; of the latter two, every finished run below.
        beside: published tables to put under ours.

    Raises:
        MissingError: there is no finished run in a folder.
        ConfigError: two runs of one name and seed, or no such published table.
    """
    rows = rows_of([run for folder in folders for run in runs_in(folder)])
    paired = Paired(rows)
    under = [published(name) for name in beside or []]
    tables = [*all_tables(rows, Ranking(paired)), *under]
    told = compact(differences(rows, paired))
    if output is not None:
        write_tables(tables, output, under=[told])
    return "\n".join(filter(None, [*(markdown(table) for table in tables if not table.quiet), told]))


def paired_runs(*folders: Path | str) -> Paired:
    """Return the finished runs of studies, to be compared two rows at a time, as in

    >>> paired_runs("runs/ablation").between("full", "naive_concat", "factor_mean")  # doctest: +SKIP
    """
    return Paired(rows_of([run for folder in folders for run in runs_in(Path(folder))]))


def runs_in(folder: Path) -> list[FinishedRun]:
    """Return the finished runs of a folder, in their order."""
    folder = folder.expanduser().resolve()
    if FOLDER.fullmatch(folder.name) or not folder.is_dir():
        return [FinishedRun.open(folder)]
    found = []
    for config in sorted(folder.glob("**/seed-*/config.yaml")):
        try:
            found.append(FinishedRun.open(config.parent))
        except MissingError:  # not finished: a table shows what is
            continue
    if not found:
        raise MissingError(f"{folder}: no finished run below it. Name runs, variants or studies: OUTPUT/STUDY")
    return found


def rows_of(runs: list[FinishedRun]) -> list[Row]:
    """Return a row for each run, named by its variant, and by its study where there are several."""
    several = len({run.folder.parents[1] for run in runs}) > 1
    rows: dict[tuple[str, int], tuple[Row, Path]] = {}
    for run in runs:
        variant = run.folder.parent
        name = f"{variant.parent.name}/{variant.name}" if several else variant.name
        measured = run.stored("evaluate")
        row = Row(name, run.seed, values_of(measured), samples_of(measured))
        _, other = rows.setdefault((name, run.seed), (row, run.folder))
        if other != run.folder:
            raise ConfigError(
                f"compare: {name}, seed {run.seed}, is there twice:\n  {other}\n  {run.folder}\n"
                "Give one of the studies another name: name=..."
            )
    return [row for row, _ in rows.values()]


def references_of(study: Path) -> list[str]:
    """Name the reference rows of a study, by the record in its folder; none, where there is no record."""
    record = study / "study.yaml"
    return list(load_yaml(record).get("references") or {}) if record.is_file() else []
