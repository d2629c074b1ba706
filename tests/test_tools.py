"""Tests that a tool is missing for: left out with a line, or an error where all is to be tested."""

from types import SimpleNamespace

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.tools import REQUIRED, left_out, require_tools

ITEM = SimpleNamespace(iter_markers=lambda name: [SimpleNamespace(args=("spin", "gcc"))])


def test_without_its_tools_a_test_is_left_out_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(Skipped) as skipped:
        require_tools(ITEM)  # type: ignore[arg-type]
    report = SimpleNamespace(longrepr=("file", 1, f"Skipped: {skipped.value}"))
    assert left_out([report, report]) == [  # type: ignore[list-item]
        "!!!! LEFT OUT: 2 tests, because this machine lacks spin and gcc; to run them: "
        "apt-get install spin gcc libc6-dev !!!!"
    ]


def test_where_all_is_to_be_tested_a_missing_tool_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(Failed, match="apt-get install spin gcc libc6-dev"):
        require_tools(ITEM)  # type: ignore[arg-type]
