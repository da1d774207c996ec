"""Hooks of pytest: the option `--nothing-missing`."""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest

_MISSING = re.compile("not installed|could not import|no Chromium", re.IGNORECASE)
"""What tests say that are skipped for want of something that can be installed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--nothing-missing`."""
    parser.addoption(
        "--nothing-missing", action="store_true", help="fail tests that are skipped since a package is not installed"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns skips into failures where nothing may be missing."""
    report = yield
    if report.skipped and item.config.getoption("--nothing-missing") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if _MISSING.search(reason):
            report.outcome, report.longrepr = "failed", f"nothing may be missing here: {reason}"
    return report
