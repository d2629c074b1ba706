"""How tests are collected, and left out: the same list in every process, nothing in silence."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.conftest import pytest_collection_modifyitems
from tests.tools import PACKAGES, REQUIRED, left_out, require_tools

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


def test_ci_installs_what_is_missing_and_leaves_nothing_out() -> None:
    run = (Path(__file__).parents[1] / ".ci" / "run").read_text()
    before, _, tests = run.partition("\nrun make test\n")
    assert tests
    assert f"\nexport {REQUIRED}=1\n" in before
    for tool, packages in PACKAGES.items():
        assert f"command -v {tool} >/dev/null || missing+=({packages})" in before


def test_every_process_collects_the_same_list() -> None:
    def collected(*parameters: str) -> list[str]:
        names = ["a.py::z", *(f"a.py::set[{each}]" for each in parameters), "a.py::b"]
        items = [SimpleNamespace(nodeid=name) for name in names]
        pytest_collection_modifyitems(items)  # type: ignore[arg-type]
        return [item.nodeid for item in items]

    assert collected("p", "q") == collected("q", "p")
    assert collected()[0] == "a.py::z", "files and functions stay as they are written"
