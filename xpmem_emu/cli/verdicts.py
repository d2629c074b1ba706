"""What commands that judge have in common: exit codes of verdicts, files to judge, and bundles.

The verdict comes first. A bundle that cannot be written (a full disk, a read-only folder) is a
harness error, told after the verdict, and never instead of it.
"""

import shlex
from collections.abc import Callable
from pathlib import Path

from xpmem_emu.cli.failure import CommandFailed, ExitCode
from xpmem_emu.errors import KernelError
from xpmem_emu.judge.verdict import Verdict
from xpmem_emu.shipped import find_toml
from xpmem_emu.sim.draw.swarm import Swarm, read_swarm

CODES = {
    Verdict.VALID: ExitCode.DONE,
    Verdict.INVALID: ExitCode.FAILED,
    Verdict.UNKNOWN: ExitCode.UNKNOWN,
}


def scenario_file(name: str) -> Path:
    """The file that `name` means. Raises CommandFailed, a usage error."""
    try:
        return find_toml("scenarios", name)
    except KernelError as error:
        raise CommandFailed(error.cause, error.remedy, ExitCode.USAGE, error.errno) from error


def swarm_of(path: Path) -> Swarm:
    """The swarm in a scenario file. Raises CommandFailed, a usage error."""
    try:
        return read_swarm(path)
    except KernelError as error:
        raise CommandFailed(error.cause, error.remedy, ExitCode.USAGE, error.errno) from error


def command_line(*words: object) -> str:
    """An `xpmem-emu` command as it can be typed."""
    return shlex.join(["xpmem-emu", *map(str, words)])


def with_bundle(
    write: Callable[[], Path],
    tell: Callable[[Path | None], None],
    what: str = "the bundle",
    option: str = "--runs DIR",
) -> None:
    """Writes a bundle, or what else the option is for, then tells the verdict: of one that could
    not be written, with None, after which CommandFailed is raised. Ctrl-C meanwhile does not keep
    the verdict back either."""
    folder: Path | None = None
    lost: OSError | None = None
    try:
        folder = write()
    except OSError as error:
        lost = error
    finally:
        tell(folder)
    if lost is not None:
        raise unwritten(lost, what, option)


def unwritten(lost: OSError, what: str = "the bundle", option: str = "--runs DIR") -> CommandFailed:
    """The error for what could not be written, and the option that says where."""
    where = f"{lost.filename}: " if lost.filename else ""
    return CommandFailed(
        f"{what} could not be written: {where}{lost.strerror}",
        f"{option}, a folder of yours with room",
        ExitCode.HARNESS,
        lost.errno or 0,
    )
