"""All tables of some runs, in the order a reader wants them."""

from collections.abc import Sequence

from anastyle.evaluation.tables import Row, Table, control_tables, cost_table, factor_table, main_table
from anastyle.evaluation.utility.measured import utility_tables


def all_tables(rows: list[Row], references: Sequence[str] = ()) -> list[Table]:
    """Return every table that rows fill, the main one first; references stand below the variants."""
    rows = sorted(rows, key=lambda row: row.variant in references)
    factors, cost = factor_table(rows), cost_table(rows)
    return [
        main_table(rows), *(table for table in (factors, cost) if table.columns), *control_tables(rows),
        *utility_tables(rows),
    ]  # fmt: skip
