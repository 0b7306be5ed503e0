"""Results of a run: a table for the terminal, `report.json`, `report.md` and `report.html`.

Rows of results, paired comparisons, decisions to show with their images and a header with facts
of the run enter; text leaves, and nothing is written here. `experiment` is the only package that
imports this one.
"""

from dsd_jax.report.report_files import format_table, print_table, report_files
from dsd_jax.report.result_rows import Decision

__all__ = ["Decision", "format_table", "print_table", "report_files"]
