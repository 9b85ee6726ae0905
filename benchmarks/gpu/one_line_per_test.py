"""A pytest plugin for correctness.py: a JSON line per finished test, and a share of the tests per process."""

import json
import os

SHARE = "FACT_TEST_SHARE"  # "i/n": this process runs every n-th test from the i-th on


def pytest_collection_modifyitems(config, items):
    first, step = map(int, os.environ.get(SHARE, "0/1").split("/"))
    items[:] = items[first::step]


def pytest_runtest_logreport(report):
    """A test is one line: its call, or the set-up or tear-down that skipped or failed it."""
    if report.when != "call" and report.outcome == "passed":
        return
    outcome = {"failed": "failure" if report.when == "call" else "error"}.get(report.outcome, report.outcome)
    row = {"test": report.nodeid.split("::", 1)[1], "outcome": outcome, "seconds": round(report.duration, 2)}
    if report.outcome != "passed":
        row["outcome"] += f": {_reason(report)}"
    print(f"\n{json.dumps(row)}", flush=True)


def _reason(report) -> str:
    if isinstance(report.longrepr, tuple):  # skipped: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    return " ".join(text.split("\n")[:2])[:300]
