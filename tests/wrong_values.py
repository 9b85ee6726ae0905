"""Pytest plugin for test_metrics_properties.py: which tests fail when a metric function gives wrong values?

    python -m pytest -p wrong_values --wrong MODULE.FUNCTION=FILE ... --report-wrong OUT FILES

Collects FILES once. For each function in turn, every module that holds it gets a version whose numbers are
changed, and the tests of its FILE run until one fails, those that name the function first. OUT receives a
JSON object: function -> the failed test, or null.
"""

import dataclasses
import functools
import importlib
import inspect
import json
import sys
from pathlib import Path

import pytest
import torch

FAILED = []  # of the test that ran last


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--wrong", action="append", default=[])
    parser.addoption("--report-wrong")


def wrong(value):
    """The same structure with other numbers; texts, booleans and single integers are left."""
    if isinstance(value, torch.Tensor) and value.dtype != torch.bool:
        return value * 1.5 + 0.1 if value.is_floating_point() else value + 1
    if isinstance(value, float):
        return value * 1.5 + 0.1
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(wrong, value))
    if isinstance(value, list | tuple):
        return type(value)(map(wrong, value))
    if isinstance(value, dict):
        return {key: wrong(entry) for key, entry in value.items()}
    if dataclasses.is_dataclass(value):
        fields = {f.name: wrong(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value


def pytest_runtestloop(session: pytest.Session) -> bool:
    failed = {}
    for entry in session.config.getoption("--wrong"):
        name, _, file = entry.partition("=")
        module, _, attribute = name.rpartition(".")
        right = getattr(importlib.import_module(module), attribute)
        holders = [
            m for m in list(sys.modules.values()) if getattr(m, "__dict__", {}).get(attribute) is right
        ]
        items = [item for item in session.items if item.path.name == file]
        items.sort(key=lambda item, a=attribute: a not in inspect.getsource(item.function))
        replacement = functools.wraps(right)(lambda *args, f=right, **options: wrong(f(*args, **options)))
        for holder in holders:
            setattr(holder, attribute, replacement)
        failed[name] = next((item.nodeid for item in items if not passes(item)), None)
        for holder in holders:
            setattr(holder, attribute, right)
    Path(session.config.getoption("--report-wrong")).write_text(json.dumps(failed))
    return True


def passes(item: pytest.Item) -> bool:
    FAILED.clear()
    item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
    return not FAILED


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        FAILED.append(report.nodeid)
