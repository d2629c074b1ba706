"""Every way to fail, as one line on stderr and one exit code. No traceback unless asked for.

    error: what (ERRNO): why; try: remedy

| code | meaning |
|---|---|
| 0 | done; verdict valid |
| 1 | the emulator or the system refused; verdict invalid |
| 2 | unknown: the outcome could not be learned |
| 3 | harness error: a fault of this program or of its surroundings, not of what was asked |
| 64 | usage: the command line itself cannot be read |
| 130, 141 | interrupted; nobody reads the output any more (the shell's numbers) |

Errors of the client library are recognised by their `cause` and `remedy`, signals of tasks by
their `info`: both are part of the library's contract, so this module needs no import of it.
"""

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

import click

from xpmem_emu.errors import KernelError, SignalInfo, errno_name
from xpmem_emu.text import visible


class ExitCode(IntEnum):
    """What the shell gets."""

    DONE = 0
    FAILED = 1
    UNKNOWN = 2
    HARNESS = 3
    USAGE = 64
    INTERRUPTED = 130
    PIPE_CLOSED = 141


def exit_code(ok: bool) -> ExitCode:
    """The code of a verdict."""
    return ExitCode.DONE if ok else ExitCode.FAILED


@dataclass(frozen=True, slots=True)
class Failure:
    """One line for people and one code for programs."""

    code: ExitCode
    what: str
    why: str
    remedy: str = ""

    def __str__(self) -> str:
        """The line; where `why` quotes something longer, such as a log, that follows indented."""
        why, *quoted = map(visible, self.why.strip().splitlines() or ["no reason given"])
        line = f"error: {self.what}: {why.rstrip(':')}"
        if self.remedy:
            line += f"; try: {self.remedy}"
        return "\n    ".join([line, *quoted])


class CommandFailed(Exception):
    """A command's own refusal, with what to do about it."""

    def __init__(
        self, why: str, remedy: str = "", code: ExitCode = ExitCode.FAILED, number: int = 0
    ) -> None:
        super().__init__(why)
        self.why = why
        self.remedy = remedy
        self.code = code
        self.errno = number


_FILE_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "make it readable, or run as its owner",
    errno.EISDIR: "name a file, not a directory",
    errno.ENOSPC: "free space on that file system",
}
_UNANSWERED = {errno.ETIMEDOUT, errno.ECONNRESET}
"""Asked, and no answer: it may have happened or not."""


def explain(error: BaseException, command: str, said: Callable[[str], str] = str) -> Failure:
    """What to tell about `error`, which ended `command`. `said` turns what partitions say, who know
    each other by numbers, into what people call them."""
    if isinstance(error, click.ClickException):
        return _usage(error, command)
    if isinstance(error, CommandFailed):
        return Failure(error.code, _what(command, error.errno), error.why, error.remedy)
    info = getattr(error, "info", None)
    if isinstance(info, SignalInfo):
        why = said(f"the task got {info.describe()}")
        return Failure(ExitCode.FAILED, command, why, _signal_remedy(info))
    if isinstance(error, KernelError) or hasattr(error, "cause"):
        return _refusal(error, command, said)
    if isinstance(error, OSError):
        return _system(error, command)
    why = " ".join(f"internal error, {type(error).__name__}: {error}".split())
    return Failure(ExitCode.HARNESS, command, why, "the same with --debug, and report it")


def _what(command: str, number: int) -> str:
    return f"{command} ({errno_name(number)})" if number else command


def _usage(error: click.ClickException, command: str) -> Failure:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else f"xpmem-emu {command}"
    what = path.partition(" ")[2] or path
    return Failure(ExitCode.USAGE, what, error.format_message().rstrip("."), f"{path} --help")


def _refusal(error: BaseException, command: str, said: Callable[[str], str]) -> Failure:
    number = int(getattr(error, "errno", 0) or 0)
    code = ExitCode.UNKNOWN if number in _UNANSWERED else ExitCode.FAILED
    why = said(str(getattr(error, "cause", "")) or str(error))
    return Failure(code, _what(command, number), why, said(str(getattr(error, "remedy", ""))))


def _system(error: OSError, command: str) -> Failure:
    number = error.errno or 0
    why = error.strerror or str(error)
    if error.filename:
        why = f"{os.fspath(error.filename)!s}: {why}"
    return Failure(ExitCode.FAILED, _what(command, number), why, _FILE_REMEDIES.get(number, ""))


def _signal_remedy(info: SignalInfo) -> str:
    if info.segid:
        return f"xpmem-emu describe {info.segid:#x}"
    return "`xpmem-emu pagetable HANDLE` shows what is mapped there"


def guard(
    work: Callable[[], object],
    command: Callable[[], str],
    debug: Callable[[], bool],
    said: Callable[[str], str] = str,
    typeable: Callable[[str], str] = str,
) -> int:
    """Runs `work`; whatever it raises becomes a line on stderr and the exit code returned. `said`:
    see `explain`; `typeable` makes a remedy one that works as it stands."""
    try:
        try:
            result = work()
        except click.exceptions.Exit as end:
            result = end.exit_code
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not hasattr(error, "cause"):
            # A partition that shuts down (ESHUTDOWN) is one too, and says why.
            _abandon_stdout()
            return ExitCode.PIPE_CLOSED
        if debug():
            import traceback

            traceback.print_exc()
        lost = _stdout_error()
        failure = _unwritten(lost, command()) if error is lost else explain(error, command(), said)
        print(replace(failure, remedy=typeable(failure.remedy)), file=sys.stderr)
        return failure.code
    if lost := _stdout_error():  # the command took it for an error of its own
        print(failure := _unwritten(lost, command()), file=sys.stderr)
        return failure.code
    return result if isinstance(result, int) else ExitCode.DONE


def _stdout_error() -> OSError | None:
    """Why stdout took no more, where `xpmem_emu.__main__` keeps watch over it."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    lost: OSError | None = getattr(raw, "lost", None)
    return lost


def _unwritten(lost: OSError, command: str) -> Failure:
    number = lost.errno or 0
    return Failure(
        ExitCode.HARNESS,
        _what(command, number),
        f"the result could not be written to stdout: {lost.strerror}",
        _FILE_REMEDIES.get(number, ""),
    )


def _abandon_stdout() -> None:
    """Stops the interpreter's last flush from complaining about the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
