"""All tables of some runs, in the order a reader wants them."""

from anastyle.evaluation.tables import (
    UNPAIRED,
    Ranking,
    Row,
    Table,
    control_tables,
    corrected_table,
    cost_table,
    factor_table,
    main_table,
)
from anastyle.evaluation.utility.measured import utility_tables


def all_tables(rows: list[Row], ranking: Ranking = UNPAIRED) -> list[Table]:
    """Return every table that rows fill, the main one first."""
    further = [factor_table(rows, ranking), corrected_table(rows, ranking), cost_table(rows, ranking)]
    return [
        main_table(rows, ranking), *(table for table in further if table.columns), *control_tables(rows, ranking),
        *utility_tables(rows, ranking),
    ]  # fmt: skip
