"""Counts of what was tried, at the end of the output."""

import pytest

from tests.mutations.mutate import Trials


@pytest.fixture
def tried(record_property) -> Trials:
    trials = Trials()
    yield trials
    record_property("mutations", [trials.taken, trials.refused])


def pytest_terminal_summary(terminalreporter) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found]
    rows, total = [], 0
    for report in reports:
        counts = dict(getattr(report, "user_properties", ())).get("mutations")
        if counts and report.when == "teardown":
            name = report.nodeid.split("/")[-1]
            rows.append(f"{name}: {counts[0]} taken, {counts[1]} refused")
            total += sum(counts)
    if rows:
        terminalreporter.section(f"{total} changed inputs")
        terminalreporter.write_line("\n".join(sorted(rows)))
