"""docs/faults.md lists what there is."""

from pathlib import Path

import pytest

from xpmem_emu.failpoints import POINTS
from xpmem_emu.failpoints.terms import TermAction
from xpmem_emu.inject.grammar import parse_injection
from xpmem_emu.inject.rules import SIGNATURES, Membership

PAGE = (Path(__file__).parents[2] / "docs" / "faults.md").read_text()


@pytest.mark.parametrize("name", sorted(POINTS))
def test_every_failpoint_is_listed(name: str) -> None:
    assert f"| `{name}` |" in PAGE


def test_every_kind_of_fault_and_every_action_is_there() -> None:
    kinds = [verdict.value for verdict in SIGNATURES]
    kinds += [each.value for each in Membership] + [each.value for each in TermAction]
    assert [kind for kind in kinds if f"`{kind}" not in PAGE] == []


def test_the_examples_on_the_page_are_faults() -> None:
    lines = [line.strip() for line in PAGE.splitlines() if "xpmem-emu fault add" in line]
    assert len(lines) == 2
    for line in lines:
        assert parse_injection(line.split("'")[1])
