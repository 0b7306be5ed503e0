"""Results of a run: a table for the terminal, `report.json`, `report.md`, `report.html`."""

from dsd_jax.report.files import report_files, write_report
from dsd_jax.report.rows import Decision
from dsd_jax.report.text import format_table, print_table

__all__ = ["Decision", "format_table", "print_table", "report_files", "write_report"]
