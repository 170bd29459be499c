"""Measuring: distances, the judge, tables, and the report of a study."""
