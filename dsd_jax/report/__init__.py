"""Results of a run: a table for the terminal, `report.json`, `report.md` and `report.html`.

Rows of results, paired comparisons, decisions to show with their images and maps, and facts and
details of the run enter; text leaves, and nothing is written here. `experiment` is the only package
that imports this one.
"""

from dsd_jax.report.report_files import report_files
from dsd_jax.report.run_details import HeldOutGain, LearningRun, RunDetails, Setting, Term
from dsd_jax.report.shown_decision import Decision, WordMap
from dsd_jax.report.text_table import best_rows, format_table, print_table

__all__ = [
    "Decision",
    "HeldOutGain",
    "LearningRun",
    "RunDetails",
    "Setting",
    "Term",
    "WordMap",
    "best_rows",
    "format_table",
    "print_table",
    "report_files",
]
