"""All tables of some runs, in the order a reader wants them."""

from anastyle.evaluation.tables import Row, Table, control_tables, cost_table, factor_table, main_table
from anastyle.evaluation.utility.measured import utility_tables


def all_tables(rows: list[Row]) -> list[Table]:
    """Return every table that rows fill, the main one first."""
    factors, cost = factor_table(rows), cost_table(rows)
    return [
        main_table(rows), *(table for table in (factors, cost) if table.columns), *control_tables(rows),
        *utility_tables(rows),
    ]  # fmt: skip
