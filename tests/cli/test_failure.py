"""Every failure is one line and one exit code; a traceback only where it was asked for."""

import errno
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from xpmem_emu.cli.failure import CommandFailed, ExitCode, explain, guard
from xpmem_emu.errors import KernelError, Signal, SignalInfo


class Refused(OSError):
    """As the client library raises it."""

    def __init__(self, number: int, cause: str, remedy: str) -> None:
        super().__init__(number, cause)
        self.cause = cause
        self.remedy = remedy


class TaskGotSigBus(Exception):
    """As the client library raises it."""

    info = SignalInfo(Signal.SIGBUS, "the exporter unmapped it", 0x7000, 0x10, 1, 3)


def fail(error: BaseException) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


def outcome(error: BaseException, debug: bool = False) -> int:
    return guard(fail(error), lambda: "attach", lambda: debug)


def test_a_refusal_names_errno_cause_and_remedy() -> None:
    failure = explain(Refused(errno.ENOENT, "no segment 0x10", "xpmem-emu get segments"), "attach")
    assert str(failure) == ("error: attach (ENOENT): no segment 0x10; try: xpmem-emu get segments")
    assert failure.code is ExitCode.FAILED


def test_no_answer_in_time_is_an_unknown_outcome() -> None:
    assert outcome(Refused(errno.ETIMEDOUT, "p1 did not answer", "")) == ExitCode.UNKNOWN


def test_a_partition_that_shuts_down_is_not_taken_for_a_closed_pipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class ShutDown(Refused, BrokenPipeError):
        """What Python makes of ESHUTDOWN."""

    error = ShutDown(errno.ESHUTDOWN, "p0 has shut down", "xpmem-emu ps")
    assert outcome(error) == ExitCode.FAILED
    assert capsys.readouterr().err == (
        "error: attach (ESHUTDOWN): p0 has shut down; try: xpmem-emu ps\n"
    )


def test_a_signal_tells_page_segment_partition_and_reason() -> None:
    text = str(explain(TaskGotSigBus(), "load"))
    assert text == (
        "error: load: the task got SIGBUS at 0x7000 (segment 0x10 page 3 of p1): the exporter "
        "unmapped it; try: xpmem-emu describe 0x10"
    )


def test_a_quoted_log_follows_the_line() -> None:
    error = KernelError(errno.ECHILD, "p1 died:\nImportError\nthe end", "xpmem-emu logs p1")
    assert str(explain(error, "up")).splitlines() == [
        "error: up (ECHILD): p1 died; try: xpmem-emu logs p1",
        "    ImportError",
        "    the end",
    ]


def test_an_image_error_is_a_refusal_too() -> None:
    error = KernelError(errno.EINVAL, "xpc.slots: expected int", "see docs/images.md")
    assert str(explain(error, "up")) == (
        "error: up (EINVAL): xpc.slots: expected int; try: see docs/images.md"
    )


def test_a_missing_file_is_named() -> None:
    failure = explain(FileNotFoundError(errno.ENOENT, "No such file or directory", "/x/y"), "cp")
    assert str(failure) == (
        "error: cp (ENOENT): /x/y: No such file or directory; try: check the path"
    )


def test_bad_usage_has_its_own_code() -> None:
    assert outcome(click.UsageError("No such option: --frob")) == ExitCode.USAGE


def test_a_bug_of_ours_is_a_harness_error_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(ZeroDivisionError("two\nlines")) == ExitCode.HARNESS
    assert capsys.readouterr().err.count("\n") == 1


def test_debug_shows_the_traceback_first(capsys: pytest.CaptureFixture[str]) -> None:
    outcome(CommandFailed("no"), debug=True)
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.endswith("error: attach: no\n")


def test_ctrl_c_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(KeyboardInterrupt()) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_a_command_answers_with_its_own_verdict() -> None:
    assert guard(lambda: ExitCode.UNKNOWN, lambda: "demo", lambda: False) == 2
    assert guard(lambda: None, lambda: "demo", lambda: False) == 0


def test_a_reader_that_went_away_is_no_error() -> None:
    program = "import sys; from xpmem_emu.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os,subprocess,sys\nr,w=os.pipe()\nos.close(r)\n"
            f"p=subprocess.run([sys.executable,'-c',{program!r},'--help'],stdout=w,"
            "stderr=subprocess.PIPE)\nprint(p.returncode,p.stderr.decode())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(int(ExitCode.PIPE_CLOSED))
