"""All tables of some runs, in the order a reader wants them."""

from anastyle.evaluation.tables import Row, Table, control_tables, factor_table, main_table
from anastyle.evaluation.utility.measured import utility_tables


def all_tables(rows: list[Row]) -> list[Table]:
    """Return every table that rows fill, the main one first."""
    factors = factor_table(rows)
    return [main_table(rows), *([factors] if factors.columns else []), *control_tables(rows), *utility_tables(rows)]
