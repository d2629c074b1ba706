"""`sim explore`: what it says to people and to programs, and its exit codes."""

import json
from collections.abc import Iterator

import pytest

from xpmem_emu.cli import exploring
from xpmem_emu.cli.failure import ExitCode
from xpmem_emu.cli.main import run_command
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.sim.explore.search import Explored
from xpmem_emu.sim.explore.tree import Found, ScheduleTally

BROKEN = ["sim", "explore", "inflight-race", "--mutant", "install_invalid"]
LINE = "6:first1"


def test_a_violation_is_told_with_its_deviations_and_the_line_that_repeats_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(BROKEN, CommandSession()) == ExitCode.FAILED
    out = capsys.readouterr().out
    assert "1 deviations:        41 schedules" in out
    assert "#6 INVALIDATE p0->p1 before FAULT_REPLY p0->p1" in out
    assert f"replay: xpmem-emu {' '.join(BROKEN)} --replay {LINE}" in out
    assert "verdict: invalid" in out


def test_the_line_shows_the_same_schedule_event_by_event(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command([*BROKEN, "--replay", LINE], CommandSession()) == ExitCode.FAILED
    out = capsys.readouterr().out.splitlines()
    assert "INVALIDATE p0->p1 before FAULT_REPLY p0->p1" in out
    assert any(line.startswith("S4 on p1") for line in out)
    whole = ["sim", "explore", "inflight-race", "--replay", LINE]
    assert run_command(whole, CommandSession()) == ExitCode.DONE


def test_a_document_has_the_counts_of_each_depth(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sim", "explore", "far-remove", "--deviations", "1", "-o", "json"]
    assert run_command(command, CommandSession()) == ExitCode.DONE
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == "xpmem-emu/explore/v1"
    (world,) = said["worlds"]
    assert (world["verdict"], world["complete"], world["schedules"]) == ("valid", True, [1, 53])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere"], "'inflight-race'"),
        (["inflight-race", "--replay", "drop"], "'drop' is not POINT:CHOICE"),
        (["inflight-race", "--replay", "2:drop"], "no such choice at point 2"),
        (["all", "--replay", LINE], "a line belongs to one world"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["sim", "explore", *arguments], CommandSession()) == ExitCode.USAGE
    assert why in capsys.readouterr().err


def steps(*tallies: ScheduleTally, error: type[BaseException] | None = None) -> Iterator[object]:
    """A search that comes to these and is then interrupted."""
    for tally in tallies:
        yield Explored("far-remove", 1, tally, 0, complete=False), 1, 2
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("tally", "error", "code"),
    [
        (ScheduleTally(), KeyboardInterrupt, ExitCode.INTERRUPTED),
        (
            ScheduleTally(found=[Found("1:drop", 1, "S1", "S1: why")]),
            KeyboardInterrupt,
            ExitCode.FAILED,
        ),
        (ScheduleTally(found=[Found("1:drop", 1, "", "it does not end")]), None, ExitCode.UNKNOWN),
        (ScheduleTally(errors=[Found("1:drop", 1, "", "Traceback")]), None, ExitCode.HARNESS),
    ],
)
def test_what_was_explored_until_then_is_told(
    tally: ScheduleTally,
    error: type[BaseException] | None,
    code: ExitCode,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tally.schedules[1] = 7
    monkeypatch.setattr(exploring, "explore", lambda *_: steps(tally, error=error))
    assert run_command(["sim", "explore", "far-remove"], CommandSession()) == code
    out = capsys.readouterr().out
    assert "1 deviations:         7 schedules" in out
    assert "not all with 1 deviations were run" in out


def test_a_limit_of_time_leaves_the_verdict_open(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sim", "explore", "session-change", "--limit", "0"]
    assert run_command(command, CommandSession()) == ExitCode.UNKNOWN
    assert "verdict: unknown" in capsys.readouterr().out
