"""Results of a run: a table for the terminal, `report.json`, `report.md` and `report.html`.

Rows of results, paired comparisons, decisions to show with their images and maps, and facts and
details of the run enter; text leaves, and nothing is written here. `experiment` is the only package
that imports this one.
"""

from dsd_jax.report.report_files import format_table, print_table, report_files
from dsd_jax.report.run_details import HeldOutGain, LearningRun, RunDetails, Setting, Term
from dsd_jax.report.shown_decision import Decision, WordMap

__all__ = [
    "Decision",
    "HeldOutGain",
    "LearningRun",
    "RunDetails",
    "Setting",
    "Term",
    "WordMap",
    "format_table",
    "print_table",
    "report_files",
]
