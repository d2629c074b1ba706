"""Fencing a lost importer that may be alive: migrate and quarantine (S7).

When a partition is given up (deadline, heartbeat, reboot) its process may merely be stopped, and
wake an hour later in the middle of a store. For every frame that it could write:

* at once, atomically: take a reference of its own on the frame (quarantine), so that nobody can
  get the frame from the allocator, and forget the partition as a holder;
* then, in a thread: migrate the live pages away from those frames, whoever maps them by now,
  which recalls them from the healthy holders on the way. A store that wakes late lands in a
  retired frame. A page that is in other hands just then - reclaim that gives it back, a fork whose
  recall failed and that shares it with a child - is tried again until no live page is left there.

Whoever took pages away (mprotect, fork, munmap, remove...) returns only then: `passed` is the end
of the recall. It waits there and not in the recall itself, because the migration recalls the page
from its healthy holders, and moves nothing that an operation holds or keeps BUSY:

    mprotect                       fence of the lost holder
    begin; settle: given up -----> quarantine, migrate: BUSY, settle (waits for our recall)
    unpin; the recall is over ---> nobody holds the page: copied, entries point to the copy
    passed: no live page there <---

So a fence waits for recalls, transits and memory, none of which waits for a fence: transits have
no such end (`Transit`), and a gather is not counted as an operation any more when it gets there. Of
the locks that are held meanwhile, the mmap_lock is not needed to migrate, and the mutex of a file
only by who pins pages under it; writeback, which leaves pages in use, drops it before. Bounded: a
fence that cannot move a page kills who uses it, and a killed thread waits no longer.

Quarantined frames return to the allocator on proof only: the harness saw that very process end, or
that very process came back in a newer session, which it enters only after it dropped everything.
A newer boot is no proof: its process says nothing about another one, which may be stopped and still
map everything. Nor is any clock.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from xpmem_emu.errors import KernelError, Signal, SignalInfo
from xpmem_emu.failpoints.points import FENCE_MIGRATE
from xpmem_emu.mm import page_cache, rmap
from xpmem_emu.mm.extents import distinct, numbers
from xpmem_emu.mm.gather import Gather
from xpmem_emu.mm.migrate import migrate_frames
from xpmem_emu.sched import WaitQueue, Wake
from xpmem_emu.units import PAGE_MASK, PAGE_SHIFT
from xpmem_emu.xpc.remote import EPOCH_BITS, EPOCH_MAX
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.extents import Vector
from xpmem_emu.xpmem.objects import Segment, ThreadGroup
from xpmem_emu.xpmem.services import Services

RECALLS_MAX = 4
"""Pages that others hold on to for as long as so many recalls in a row cost their user's life."""
RETRIES = 256
"""How often moving them is tried until then."""

SessionKey = tuple[int, int]
"""(partid, session incarnation)."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """Frames that a lost importer may write, and at which pages of their owner they were then."""

    group: ThreadGroup
    vpns: Vector
    frames: Vector

    def within(self, group: ThreadGroup, start: int, end: int) -> Vector:
        """Those that were in [start, end) of the owner's address space."""
        if group is not self.group:
            return self.frames[:0]
        first, last = start >> PAGE_SHIFT, (end + PAGE_MASK) >> PAGE_SHIFT
        return self.frames[(self.vpns >= first) & (self.vpns < last)]


class Fence:
    """Quarantined frames of one exporting partition, by the session that could write them."""

    def __init__(self, services: Services, exporter: Exporter) -> None:
        self._services = services
        self._exporter = exporter
        self._quarantine: dict[SessionKey, list[Exposed]] = defaultdict(list)
        self._moved = WaitQueue(services.scheduler)
        """Woken when a fence made an attempt, and when a session is proven gone."""

    def begin(self, importer: int, incarnation: int, reason: str) -> None:
        """Partition `importer` is lost. Atomic; the migration follows in a thread of its own."""
        session = (importer, incarnation)
        # Frames before grants, in one step: whoever unpins from now on frees nothing of these.
        for segment in self._exporter.segments.values():
            self._retire(session, segment)
        self._exporter.forget_importer(importer)
        frames = self._count(session)
        if not frames:
            return
        self._services.tracer.emit(
            events.FenceBegin(
                importer=importer, incarnation=incarnation, frames=frames, reason=reason
            )
        )
        self._services.scheduler.spawn(f"xpmem_fence/p{importer}", self._migrate(session))

    def prove_gone(self, importer: int, boot: int, proof: str) -> None:
        """The process of that boot of `importer` has ended."""
        self._prove(importer, boot << EPOCH_BITS | EPOCH_MAX, proof)

    def prove_left(self, importer: int, incarnation: int, proof: str) -> None:
        """Its process has left that session, and with it all that its boot had before."""
        self._prove(importer, incarnation, proof)

    def _prove(self, importer: int, last: int, proof: str) -> None:
        """Sessions of one boot up to `last` can touch nothing any more."""
        first = last >> EPOCH_BITS << EPOCH_BITS
        for session in [
            each for each in self._quarantine if each[0] == importer and first <= each[1] <= last
        ]:
            frames = self._count(session)
            for exposed in self._quarantine.pop(session):
                self._services.memory.frames.release_quarantined(exposed.frames)
            self._services.tracer.emit(
                events.QuarantineEmpty(
                    importer=importer, incarnation=session[1], frames=frames, proof=proof
                )
            )
        self._moved.wake_all()

    async def passed(self, group: ThreadGroup, start: int, end: int) -> None:
        """Return when no lost importer can reach a live page by what it held of [start, end) of
        `group`, or when the caller is killed. The caller holds no reference to a frame."""
        while len(
            self._in_use(
                each.within(group, start, end)
                for session in self._quarantine.values()
                for each in session
            )
        ):
            # Asked again of all that is in quarantine: sessions come and are proven gone meanwhile.
            if await self._moved.wait_killable() is Wake.KILLED:
                return

    def quarantined(self) -> dict[SessionKey, int]:
        """How many frames are retired because of which session."""
        return {session: self._count(session) for session in self._quarantine}

    def _retire(self, session: SessionKey, segment: Segment) -> None:
        """Quarantine what the session holds of `segment`, recalls under way included: those end
        now, and what they were for may well leave the page where it is."""
        importer = session[0]
        for recall in segment.recalls:
            self._keep(session, segment, *recall.taken.held_by(importer))
            recall.taken.holders.pop(importer, None)
        ranges = segment.table.held_by(importer, 0, segment.pages)
        for page, count in ranges:
            self._keep(session, segment, numbers(page, count), frames_of(segment, page, count))
        self._exporter.drop(segment, importer, ranges)

    def _keep(self, session: SessionKey, segment: Segment, pages: Vector, frames: Vector) -> None:
        if len(frames):
            self._services.memory.frames.quarantine(frames)
            self._quarantine[session].append(
                Exposed(segment.group, segment.first_vpn + pages, frames)
            )

    def _count(self, session: SessionKey) -> int:
        return sum(len(exposed.frames) for exposed in self._quarantine.get(session, ()))

    async def _migrate(self, session: SessionKey) -> None:
        """Ends when no live page is on a frame of the session, or the session is proven gone."""
        memory, scheduler = self._services.memory, self._services.scheduler
        patience_ns = RECALLS_MAX * self._services.recall_bound_ns
        give_up_ns = scheduler.now_ns + patience_ns
        moved = 0
        # Looked up each time: what was unmapped, and what is proven out of reach, is done with.
        while len(live := self._live(session)):
            try:
                if self._services.failpoints.armed:
                    await self._services.failpoints.reach(FENCE_MIGRATE)
                await self._give_up_spoilt(live)
                moved += await migrate_frames(memory, live)
                if scheduler.now_ns >= give_up_ns:
                    self._kill_users(live, "its pages could not be moved from a lost partition")
            except KernelError as error:
                why = f"no frames to move its memory out of reach of a lost partition: {error}"
                self._kill_users(live, why)
            self._moved.wake_all()
            if len(self._live(session)):
                # Asleep, not waiting for a change: two fences that fail would wake each other.
                await scheduler.sleep_until(scheduler.now_ns + patience_ns // RETRIES)
        self._moved.wake_all()  # what was left may have gone by itself since the last attempt
        self._services.tracer.emit(
            events.FenceEnd(importer=session[0], incarnation=session[1], moved=moved)
        )

    def _live(self, session: SessionKey) -> Vector:
        """The frames of the session that somebody still uses."""
        return self._in_use(exposed.frames for exposed in self._quarantine.get(session, ()))

    def _in_use(self, vectors: Iterable[Vector]) -> Vector:
        memory = self._services.memory
        frames = distinct(np.concatenate([np.zeros(0, dtype=np.int64), *vectors]))
        mapped = memory.frames.mapcount[frames] > 0
        live: Vector = frames[mapped | page_cache.in_page_cache(memory, frames)]
        return live

    async def _give_up_spoilt(self, frames: Vector) -> None:
        """Pages on poisoned frames cannot be moved, and must not be there when the frame is healed:
        an ordinary machine check for who maps them, and the cache of a file forgets them."""
        memory = self._services.memory
        spoilt = frames[memory.frames.spoilt(frames)]
        if len(spoilt):
            self._kill_users(spoilt, "machine check: its page is poisoned", Signal.SIGBUS)
            async with Gather(memory) as gather:
                for inode, positions in page_cache.by_inode(memory, spoilt):
                    page_cache.discard(gather, inode, memory.frames.index[spoilt[positions]])

    def _kill_users(self, frames: Vector, why: str, signal: Signal = Signal.SIGKILL) -> None:
        """Data may not stay where a lost partition can write, and there is nowhere else."""
        pids: set[int] = set()
        rmap.look(self._services.memory, frames, lambda mm, vpns, ptes: pids.add(mm.pid))
        for pid in sorted(pids):
            self._services.kill(pid, SignalInfo(signal, why, forced=True))


def frames_of(segment: Segment, page: int, count: int) -> Vector:
    """The frames of the known pages of a range."""
    parts = [numbers(frame, length) for _, frame, length, _ in segment.table.extents(page, count)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])
