"""Results of a run: a table for the terminal, `report.json`, `report.md`, `report.html`."""

from dsd_jax.report.report_files import report_files, write_report
from dsd_jax.report.report_rows import Decision
from dsd_jax.report.text_table import format_table, print_table

__all__ = ["Decision", "format_table", "print_table", "report_files", "write_report"]
