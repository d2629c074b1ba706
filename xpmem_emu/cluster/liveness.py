"""Who is alive: one life file per partition, locked by its process for as long as that lives.

The lock is the only proof used: the system drops it when the process is gone, however it ended,
and keeps it while the process is merely stopped. A proof is about one process: the boot that locked
this very file. A file says from which boot on it was the one that was locked, because names can be
taken away: after a cleaner came by, a new file of the same name proves nothing about a process that
still holds the old one. So who watches a process holds its file, not its name. Where the file
cannot be seen (another host, another arena folder) there is no proof.

Clocks prove nothing here; the wall clock only gives the first boot a number above those of a life
file that was lost. The file stays when its process ends: it carries the last boot number to the
next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from xpmem_emu.cluster.descriptors import open_files
from xpmem_emu.errors import KernelError
from xpmem_emu.polling import wait_until

if TYPE_CHECKING:
    import asyncio

BOOT_LIMIT = 1 << 40
_BOOTS_PER_S = 100
"""Finer than a process can start, so that numbers grow even when the life file was lost."""
_PATIENCE_S = 1.0
_WATCH_S = 0.2
_SUFFIX = ".life"


class LifeRecord(msgspec.Struct, frozen=True):
    """The process that holds, or held, a life file. `started` as in `start_ticks`. Every boot from
    `first` on locked this very file, one after the other."""

    boot: int
    pid: int
    started: int
    first: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A living process of a partition. `lost`: the name of its life file is gone."""

    partid: int
    life: LifeRecord
    lost: bool


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since this machine did; 0: there is none. With the
    pid it names one process for ever, and unlike a time of day nobody can set it."""
    return _stat(pid)[1]


def is_stopped(pid: int, started: int) -> bool:
    """Whether that process is there, and stopped by a signal."""
    return _stat(pid) == ("T", started)


def _stat(pid: int) -> tuple[str, int]:
    """State and start of a process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    # The second field is the command in parentheses and may hold anything; start is the 22nd.
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def life_path(folder: Path, partid: int) -> Path:
    """The life file of `partid` in an arena folder."""
    return folder / f"p{partid}{_SUFFIX}"


def living(path: Path) -> LifeRecord | None:
    """The process that holds the life file `path`, None when nobody does."""
    with suppress(FileNotFoundError), _Look(path) as look:
        return None if look.free else look.life
    return None


def holders(folder: Path) -> list[Holder]:
    """The processes of this machine that are partitions of an arena folder, by partid."""
    found = {}
    for file in open_files(folder):
        if not file.name.endswith(_SUFFIX):
            continue
        with suppress(OSError), _Look(file.link) as look:
            # Others open the file for an instant, to look at its lock.
            if look.life and (look.life.pid, look.life.started) == (
                file.pid,
                start_ticks(file.pid),
            ):
                partid = int(file.name.removesuffix(_SUFFIX).removeprefix("p"))
                # By process, too: two that began at the same moment may have the same boot number.
                found[partid, look.life.boot, file.pid] = Holder(partid, look.life, file.lost)
    return [found[key] for key in sorted(found)]


def require_dead(folder: Path, partid: int, mine: LifeRecord | None = None) -> None:
    """Raises KernelError EEXIST when a process of that partition lives, besides `mine`: a stopped
    one, one of another container, and one whose file has no name any more, all the same."""
    strays = [holder.life for holder in holders(folder) if holder.partid == partid]
    for one in [living(life_path(folder, partid)), *strays]:
        if one not in (None, mine):
            raise KernelError(
                errno.EEXIST,
                f"partition {partid} runs already, perhaps stopped (pid {one.pid})",
                f"xpmem-emu reboot p{partid}, or xpmem-emu down",
            )


class LifeLock:
    """This process is the partition. Released by the end of the process, or by `release`."""

    def __init__(self, folder: Path, partid: int) -> None:
        """Takes the lock and the next boot number. Raises KernelError EEXIST when a process of
        this partition lives."""
        self._fd = os.open(life_path(folder, partid), os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked_in_time(self._fd):
            os.close(self._fd)
            require_dead(folder, partid)
            raise KernelError(errno.EEXIST, f"partition {partid} ended just now", "the same again")
        before = _read(self._fd)
        # One more than the last: ids carry its low byte, and 256 boots in a row must not share ids.
        self.boot = (before.boot if before else int(time.time() * _BOOTS_PER_S)) + 1
        assert self.boot < BOOT_LIMIT
        first = before.first if before else self.boot
        life = LifeRecord(self.boot, os.getpid(), start_ticks(os.getpid()), first)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, msgspec.json.encode(life), 0)
        try:
            # Last: of two that hold files of one name, the later to look sees the other.
            require_dead(folder, partid, life)
        except KernelError:
            self.release()
            raise

    def release(self) -> None:
        """Let the next boot have the partition."""
        os.close(self._fd)


class LifeWatch:
    """Proves that processes of peers are gone, for peers whose link went down."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, folder: Path, gone: Callable[[int, LifeRecord], None]
    ) -> None:
        """`gone(partid, life)`: that process of `partid` has ended."""
        self._loop = loop
        self._folder = folder
        self._gone = gone
        self._met: dict[int, dict[int, _Look | None]] = {}
        """By partid and boot: processes that mapped our memory, or may have, and are not proven
        gone, with their life file where we got hold of it."""
        self._waiting: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def met(self, partid: int, boot: int) -> None:
        """A process of that boot exists, or existed."""
        boots = self._met.setdefault(partid, {})
        boots[boot] = boots.get(boot) or self._find(partid, boot)

    def link_down(self, partid: int) -> None:
        """Watch the processes that were behind that link until they are proven gone."""
        if self._met.get(partid):
            self._waiting.add(partid)
            self._look_later()

    def close(self) -> None:
        """Watch nobody."""
        if self._timer is not None:
            self._timer.cancel()
        for boots in self._met.values():
            for look in filter(None, boots.values()):
                look.close()

    def _find(self, partid: int, boot: int) -> _Look | None:
        """The file that this boot locked, if it still has its name."""
        try:
            look = _Look(life_path(self._folder, partid))
        except OSError:
            return None
        if look.is_of(boot):
            return look
        look.close()
        return None

    def _look_later(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = self._loop.call_later(_WATCH_S, self._look)

    def _look(self) -> None:
        self._timer = None
        for partid in sorted(self._waiting):
            boots = self._met[partid]
            for boot in sorted(boots):
                look = boots[boot] = boots[boot] or self._find(partid, boot)
                if look is not None and (ended := look.ended(boot)):
                    look.close()
                    del boots[boot]
                    self._gone(partid, ended)
            if not boots:
                self._waiting.remove(partid)
        self._look_later()


class _Look:
    """A life file that we hold and do not lock for longer than a look takes."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._fd = os.open(path, os.O_RDONLY)
        self.free = False
        self.life: LifeRecord | None = None
        self._refresh()
        self._seen = self.life

    def __enter__(self) -> _Look:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let it go."""
        os.close(self._fd)

    def is_of(self, boot: int) -> bool:
        """Whether this is the file that `boot` locked."""
        return self.life is not None and self.life.first <= boot <= self.life.boot

    def ended(self, boot: int) -> LifeRecord | None:
        """The process of `boot`, which locked this file, if it has ended: the lock is free, or a
        later one could take it."""
        assert self.is_of(boot)
        self._refresh()
        if self.life is None or not (self.free or self.life.boot > boot):
            return None
        known = self._seen if self._seen and self._seen.boot == boot else self.life
        return known if known.boot == boot else LifeRecord(boot, 0, 0, known.first)

    def _refresh(self) -> None:
        """What the file says, read after the attempt to lock: a free lock that we hold keeps the
        text still, a held one can only belong to the boot that it names or to a later one."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self.free = True
        except BlockingIOError:
            self.free = False
        self.life = _read(self._fd)
        if self.free:
            fcntl.flock(self._fd, fcntl.LOCK_UN)


def _locked_in_time(fd: int) -> bool:
    """Whether we got the lock; patient, because a peer's probe holds it for an instant."""

    def got() -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return wait_until(got, _PATIENCE_S, 0.01)


def _read(fd: int) -> LifeRecord | None:
    try:
        return msgspec.json.decode(os.pread(fd, 4096, 0), type=LifeRecord)
    except msgspec.DecodeError:
        return None
