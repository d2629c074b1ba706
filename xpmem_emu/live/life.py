"""Who is alive: one life file per partition, locked by its process for as long as that lives.

The lock is the only proof used: the system drops it when the process is gone, however it ended,
and keeps it while the process is merely stopped. So taking it proves that no process of any boot
of that partition runs, and a new boot that holds it proves the same of all boots before. Clocks
prove nothing here; the wall clock only gives the first boot a number above those of a life file
that was lost.

The file stays when its process ends: it carries the last boot number to the next one.
"""

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from xpmem_emu.errors import KernelError

BOOT_LIMIT = 1 << 40
_BOOTS_PER_S = 100
"""Finer than a process can start, so that numbers grow even when the life file was lost."""
_PATIENCE_S = 1.0
_WATCH_S = 0.2


class Life(msgspec.Struct, frozen=True):
    """The process that holds, or held, a life file. `started` as in `start_ticks`."""

    boot: int
    pid: int
    started: int


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since this machine did; 0: there is none. With the
    pid it names one process for ever, and unlike a time of day nobody can set it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The second field is the command in parentheses and may hold anything; start is the 22nd.
    return int(stat.rpartition(")")[2].split()[19])


def life_path(folder: Path, partid: int) -> Path:
    """The life file of `partid` in an arena folder."""
    return folder / f"p{partid}.life"


class LifeLock:
    """This process is the partition. Released by the end of the process, or by `release`."""

    def __init__(self, folder: Path, partid: int) -> None:
        """Takes the lock and the next boot number. Raises KernelError EEXIST when a process of
        this partition lives."""
        self._fd = os.open(life_path(folder, partid), os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked_in_time(self._fd):
            life = _read(self._fd)
            os.close(self._fd)
            raise KernelError(
                errno.EEXIST, f"partition {partid} runs already (pid {life.pid if life else '?'})",
                "xpmem-emu down, or another --cluster",
            )  # fmt: skip
        before = _read(self._fd)
        # One more than the last: ids carry its low byte, and 256 boots in a row must not share ids.
        self.boot = (before.boot if before else int(time.time() * _BOOTS_PER_S)) + 1
        assert self.boot < BOOT_LIMIT
        life = Life(self.boot, os.getpid(), start_ticks(os.getpid()))
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, msgspec.json.encode(life), 0)

    def release(self) -> None:
        """Let the next boot have the partition."""
        os.close(self._fd)


def gone_up_to(folder: Path, partid: int) -> int:
    """Boots of `partid` up to this number have no process any more; 0: nothing is proven."""
    life, free = _probe(life_path(folder, partid))
    if life is None:
        return 0
    return life.boot if free else life.boot - 1


def living(path: Path) -> Life | None:
    """The process that holds the life file `path`, None when nobody does."""
    life, free = _probe(path)
    return None if free else life


class LifeWatch:
    """Proves that processes of peers are gone, for peers whose link went down."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path,
                 gone: Callable[[int, int], None]) -> None:  # fmt: skip
        """`gone(partid, boot)`: the process of that boot of `partid` has ended."""
        self._loop = loop
        self._folder = folder
        self._gone = gone
        self._met: dict[int, set[int]] = {}
        """Boots of each partition that mapped our memory, or may have, and are not proven gone."""
        self._waiting: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def met(self, partid: int, boot: int) -> None:
        """A process of that boot exists, or existed."""
        self._met.setdefault(partid, set()).add(boot)

    def link_down(self, partid: int) -> None:
        """Watch the processes that were behind that link until they are proven gone."""
        if self._met.get(partid):
            self._waiting.add(partid)
            self._look_later()

    def close(self) -> None:
        """Watch nobody."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_later(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = self._loop.call_later(_WATCH_S, self._look)

    def _look(self) -> None:
        self._timer = None
        for partid in sorted(self._waiting):
            gone = gone_up_to(self._folder, partid)
            for boot in sorted(boot for boot in self._met[partid] if boot <= gone):
                self._met[partid].remove(boot)
                self._gone(partid, boot)
            if not self._met[partid]:
                self._waiting.remove(partid)
        self._look_later()


def _probe(path: Path) -> tuple[Life | None, bool]:
    """What the file says, and whether its lock is free. Read after the attempt to lock: a free
    lock that we hold keeps the text still, a held one can only belong to this boot or a later."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None, True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return _read(fd), True
    except BlockingIOError:
        return _read(fd), False
    finally:
        os.close(fd)


def _locked_in_time(fd: int) -> bool:
    """Whether we got the lock; patient, because a peer's probe holds it for an instant."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)


def _read(fd: int) -> Life | None:
    try:
        return msgspec.json.decode(os.pread(fd, 4096, 0), type=Life)
    except msgspec.DecodeError:
        return None
