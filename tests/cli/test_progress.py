"""Progress where stderr is no terminal: lines, and no control codes."""

import os
import pty
import sys
from pathlib import Path

import click
import pytest

from xpmem_emu.cli import bars, data, lines, memory
from xpmem_emu.cli.lines import Lines
from xpmem_emu.cli.progress import tracked

from .conftest import Shell
from .fake import FakeEmulator


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the time in which nothing is said."""
    monkeypatch.setattr(lines, "SHOWN_AFTER_S", 0.0)
    monkeypatch.setattr(lines, "_EVERY_S", 0.0)


def test_nothing_is_said_of_what_is_over_soon_and_then_a_line_now_and_then() -> None:
    clock, said = Clock(), list[str]()
    tell = Lines(said.append, 1.0, 10.0, clock)
    for second in range(14):
        clock.now = 100.0 + second
        tell(f"after {second} s")
    assert said == ["after 1 s", "after 11 s"]


@pytest.mark.parametrize(
    ("verbosity", "told"),
    [(0, "p0 started\np1 started\n"), (1, "p0 started\np1 started\n"), (-1, "")],
)
@pytest.mark.usefixtures("at_once")
def test_each_step_has_a_line(capfd: pytest.CaptureFixture[str], verbosity: int, told: str) -> None:
    session = FakeEmulator().session()
    session.verbosity = verbosity
    with session.steps("starting") as progress:
        progress(1, 2, "p0 started")
        progress(2, 2, "p1 started")
    assert capfd.readouterr() == ("", told)


@pytest.mark.usefixtures("at_once")
def test_a_copy_tells_how_far_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    with FakeEmulator().session().transfer("copying", 300) as advance:
        advance(100)
        advance(200)
    assert capfd.readouterr().err == "copying: 100 of 300 bytes\ncopying: 300 of 300 bytes\n"


@pytest.mark.usefixtures("at_once")
def test_cat_and_cp_tell_how_far_they_are(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (memory, data):
        monkeypatch.setattr(module, "PIECE", 4096)
    segid = shell.ok("export", "--size", "12K", "--on", "p0")
    copy = str(tmp_path / "copy")
    for command in (["cat", segid], ["cp", segid, copy], ["cp", copy, segid]):
        said = shell(*command).err
        for done in (4096, 8192, 12288):
            assert f": {done} of 12288 bytes\n" in said, command


@pytest.mark.usefixtures("at_once")
def test_items_are_counted(capfd: pytest.CaptureFixture[str]) -> None:
    context = click.Context(click.Command("sim"), obj=FakeEmulator().session())
    with context:
        assert list(tracked("ab", 2, "seeds")) == ["a", "b"]
    assert capfd.readouterr().err == "1 of 2 seeds\n2 of 2 seeds\n"


def test_a_terminal_has_a_bar_unless_it_can_show_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours), os.fdopen(theirs, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("TERM", "xterm")
        assert lines.on_terminal()
        monkeypatch.setenv("TERM", "dumb")
        assert not lines.on_terminal()


def test_a_log_has_no_bar_though_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not lines.on_terminal()


def test_work_that_takes_longer_has_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "SHOWN_AFTER_S", 0.0)
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("TERM", "xterm")
        session = FakeEmulator().session()
        with session.steps("starting") as progress:
            shown = b""
            while b"starting" not in shown:  # it appears by itself, with nothing done yet
                shown += screen.read(4096)
            assert b"1/2" not in shown
            progress(1, 2, "p0 started")
        while b"1/2" not in shown:
            shown += screen.read(4096)
        assert shown.index(b"starting") < shown.index(b"1/2")


def test_work_that_is_over_soon_has_none(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bars, "on_terminal", lambda: True)
    with FakeEmulator().session().steps("starting") as progress:
        progress(1, 1, "p0 started")
    assert capfd.readouterr() == ("", "")
