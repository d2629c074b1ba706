"""Tests that need a tool which only root can install: left out where it is missing, and said so.

`@pytest.mark.needs("spin")` names a tool. Where the environment has `REQUIRED`, everything is to be
tested, and a missing tool is an error.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable

import pytest

REQUIRED = "XPMEM_EMU_TEST_ALL"
PACKAGES = {"spin": "spin", "gcc": "gcc libc6-dev"}
"""Each tool, and what has it on Debian."""
_LEFT_OUT = "needs "


def require_tools(item: pytest.Item) -> None:
    """Leaves the test out, or fails it, when a tool that it needs is missing."""
    needed = [str(tool) for mark in item.iter_markers("needs") for tool in mark.args]
    missing = [tool for tool in needed if shutil.which(tool) is None]
    if missing and os.environ.get(REQUIRED):
        pytest.fail(f"no {' and no '.join(missing)}: {_remedy(missing)}", pytrace=False)
    if missing:
        # The one skip there is: only root can install these, and `left_out` says it aloud. In CI,
        # where REQUIRED is set, the line above has failed already.
        pytest.skip(_LEFT_OUT + " and ".join(missing))


def left_out(reports: Iterable[pytest.TestReport]) -> list[str]:
    """A line for people for each lot of tools that tests were left out for."""
    reasons: Counter[str] = Counter()
    for report in reports:
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    return [
        f"!!!! LEFT OUT: {count} {'test' if count == 1 else 'tests'}, because this machine lacks "
        f"{tools}; to run them: {_remedy(tools.split(' and '))} !!!!"
        for reason, count in reasons.items()
        if (tools := reason.removeprefix(_LEFT_OUT)) != reason
    ]


def _remedy(tools: Iterable[str]) -> str:
    return f"apt-get install {' '.join(PACKAGES[tool] for tool in tools)}"
