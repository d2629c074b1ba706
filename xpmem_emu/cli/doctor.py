"""Whether this machine and this cluster are fit: each thing that has gone wrong for people, looked
at, with what to do about it. It changes nothing."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

import click
import psutil
import zmq

from xpmem_emu.backend.strays import listed, missing_files, strays_of
from xpmem_emu.cli.cluster import clusters
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import ExitCode, exit_code
from xpmem_emu.cli.output import Listing, list_options
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.cluster.keys import KeyFolder
from xpmem_emu.cluster.paths import KEYS_VARIABLE, SOCKET_PATH_MAX, arena_room, run_folder
from xpmem_emu.errors import KernelError
from xpmem_emu.image import Image
from xpmem_emu.units import format_size

_LONGEST_SOCKET = "p255.console"
_DEFAULT_PARTITIONS = 3


class CheckResult(StrEnum):
    """How a check came out."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One check. `remedy` is empty where nothing is to be done."""

    check: str
    health: CheckResult
    detail: str
    remedy: str = ""


def _judged(check: str, ok: bool, detail: str, remedy: str) -> DoctorCheck:
    health = CheckResult.GOOD if ok else CheckResult.BAD
    return DoctorCheck(check, health, detail, "" if ok else remedy)


def _python(_session: CommandSession) -> Iterator[DoctorCheck]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield _judged("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _zeromq(_session: CommandSession) -> Iterator[DoctorCheck]:
    yield _judged(
        "zeromq",
        zmq.has("ipc"),
        f"{zmq.zmq_version()}, pyzmq {zmq.__version__}",
        "install a libzmq with the ipc transport: pip install --force pyzmq",
    )


def _keys(_session: CommandSession) -> Iterator[DoctorCheck]:
    """Whether keys can be used, and whether those of `$XPMEM_EMU_KEYS` are ours alone."""
    remedy = "install a libzmq with CURVE: pip install --force pyzmq"
    if not zmq.has("curve"):
        yield DoctorCheck("keys", CheckResult.BAD, "libzmq is built without CURVE", remedy)
    elif folder := os.environ.get(KEYS_VARIABLE):
        keys = KeyFolder(folder)
        try:
            count = len(keys.read().keys)
            here = [keys.pair(name) for name in keys.private_names()]
        except KernelError as error:
            yield DoctorCheck("keys", CheckResult.BAD, str(error), error.remedy)
        else:
            yield DoctorCheck(
                "keys", CheckResult.GOOD, f"{folder}: {count} keys, {len(here)} private here"
            )
    else:
        yield DoctorCheck("keys", CheckResult.GOOD, f"CURVE is there; {KEYS_VARIABLE} is not set")


def _arenas(session: CommandSession) -> Iterator[DoctorCheck]:
    folder, free = arena_room(session.cluster)
    writable = os.access(folder, os.W_OK)
    yield _judged(
        "arena folder",
        writable,
        f"{folder} is {'' if writable else 'not '}writable",
        "set XPMEM_EMU_ARENAS to a folder of yours in a tmpfs",
    )
    needed = _DEFAULT_PARTITIONS * Image().memory.size
    detail = (
        f"{_mebibytes(free)} free, {_DEFAULT_PARTITIONS} partitions of the default image "
        f"take {_mebibytes(needed)}"
    )
    fits = free // _DEFAULT_PARTITIONS >> 20
    smaller = f"xpmem-emu up --memory {fits}M, " if fits else ""
    yield _judged(
        "arena space",
        free >= needed,
        detail,
        f"{smaller}a larger tmpfs (docker: --shm-size 1g), or XPMEM_EMU_ARENAS",
    )


def _mebibytes(count: int) -> str:
    return format_size(count >> 20 << 20)


def _socket_paths(session: CommandSession) -> Iterator[DoctorCheck]:
    length = len(os.fsencode(run_folder(session.cluster) / _LONGEST_SOCKET))
    yield _judged(
        "socket paths",
        length <= SOCKET_PATH_MAX,
        f"up to {length} bytes, the system takes {SOCKET_PATH_MAX}",
        "a shorter --cluster name, or XDG_RUNTIME_DIR=/tmp/x",
    )


def _leftovers(session: CommandSession) -> Iterator[DoctorCheck]:
    """Partitions that live though no cluster's state names them, and clusters that are dead."""
    from xpmem_emu.backend.processes import ps

    for name in clusters():
        try:
            alive = any(one.state != "dead" for one in ps(name))
        except KernelError:
            alive = False
        strays = strays_of(name)
        if strays or not alive:
            yield DoctorCheck(
                "leftovers",
                CheckResult.NOTE,
                f"cluster {name} is not running whole; stray processes: {listed(strays) or 'none'}",
                f"xpmem-emu down --cluster {name}",
            )


def _names(session: CommandSession) -> Iterator[DoctorCheck]:
    """Files that a cleaner took the names of while partitions live."""
    missing = missing_files(session.cluster)
    detail = (
        f"no such file: {', '.join(map(str, missing))}; their partitions live, "
        "memory goes on, and here they still find each other, but no other container does"
    )
    yield _judged(
        "names of files",
        not missing,
        detail if missing else "all there",
        "xpmem-emu down, then xpmem-emu up; against cleaners: loginctl enable-linger, or "
        "another XPMEM_EMU_ARENAS",
    )


def _memory(_session: CommandSession) -> Iterator[DoctorCheck]:
    free = psutil.virtual_memory().available
    yield _judged(
        "memory",
        free > 1 << 30,
        f"{_mebibytes(free)} available",
        "close something, or use fewer or smaller partitions",
    )


def _partitions(session: CommandSession) -> Iterator[DoctorCheck]:
    try:
        names = session.partitions()
    except (KernelError, OSError):
        yield DoctorCheck(
            "partitions",
            CheckResult.NOTE,
            f"cluster {session.cluster} is not running",
            "xpmem-emu up",
        )
        return
    for name, answer in session.answers(names):
        if isinstance(answer, OSError):
            yield DoctorCheck(f"partition {name}", CheckResult.BAD, answer.cause, answer.remedy)
        else:
            yield DoctorCheck(f"partition {name}", CheckResult.GOOD, "answers")


CHECKS: tuple[Callable[[CommandSession], Iterator[DoctorCheck]], ...] = (
    _python,
    _zeromq,
    _keys,
    _memory,
    _arenas,
    _socket_paths,
    _leftovers,
    _names,
    _partitions,
)


@click.command(cls=Command)
@list_options
@pass_session
def doctor(session: CommandSession, output: Listing) -> ExitCode:
    """Check this machine and the cluster, with a remedy for what is wrong; exit code 1 if so."""
    findings = [finding for check in CHECKS for finding in check(session)]
    rows = [asdict(each) | {"remedy": session.typeable(each.remedy)} for each in findings]
    session.show("doctor", rows, output)
    return exit_code(all(each.health is not CheckResult.BAD for each in findings))
