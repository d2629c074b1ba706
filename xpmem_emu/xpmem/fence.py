"""Fencing a lost importer that may be alive: migrate and quarantine (S7).

When a partition is given up (deadline, heartbeat, reboot) its process may merely be stopped, and
wake an hour later in the middle of a store. For every frame that it could write:

* at once, atomically: take a reference of its own on the frame (quarantine), so that nobody can
  get the frame from the allocator, and forget the partition as a holder;
* then, in a thread: migrate the exporter's live pages away from those frames, which recalls
  them from the healthy holders on the way. A store that wakes late lands in a retired frame.

Quarantined frames return to the allocator on proof only: the harness saw the process gone, or
the partition came back in a newer session, which it enters only after it dropped everything.
No clock is trusted for this.
"""

from collections import defaultdict

import numpy as np

from xpmem_emu.errors import KernelError, Signal, SignalInfo
from xpmem_emu.mm.extents import numbers
from xpmem_emu.mm.migrate import migrate_range
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.extents import Range, Vector
from xpmem_emu.xpmem.objects import Segment
from xpmem_emu.xpmem.services import Services

Session = tuple[int, int]
"""(partid, session incarnation)."""


class Fence:
    """Quarantined frames of one exporting partition, by the session that could write them."""

    def __init__(self, services: Services, exporter: Exporter) -> None:
        self._services = services
        self._exporter = exporter
        self._quarantine: dict[Session, list[Vector]] = defaultdict(list)

    def begin(self, importer: int, incarnation: int, reason: str) -> None:
        """Partition `importer` is lost. Atomic; the migration follows in a thread of its own."""
        session = (importer, incarnation)
        work = [
            (segment, ranges)
            for segment in self._exporter.segments.values()
            if (ranges := self._retire(session, segment))
        ]
        self._exporter.forget_importer(importer)
        frames = self._count(session)
        if not frames:
            return
        self._services.tracer.emit(
            events.FenceBegin(
                importer=importer, incarnation=incarnation, frames=frames, reason=reason
            )
        )
        self._services.scheduler.spawn(f"xpmem_fence/p{importer}", self._migrate(session, work))

    def prove_gone(self, importer: int, incarnation: int, proof: str) -> None:
        """Sessions of `importer` up to `incarnation` can touch nothing any more."""
        for session in [s for s in self._quarantine if s[0] == importer and s[1] <= incarnation]:
            frames = self._count(session)
            for vector in self._quarantine.pop(session):
                self._services.memory.frames.release_quarantined(vector)
            self._services.tracer.emit(
                events.QuarantineEmpty(
                    importer=importer, incarnation=session[1], frames=frames, proof=proof
                )
            )

    def quarantined(self) -> dict[Session, int]:
        """How many frames are retired because of which session."""
        return {session: self._count(session) for session in self._quarantine}

    def _retire(self, session: Session, segment: Segment) -> list[Range]:
        """Quarantine what the session holds of `segment`; the ranges that must move."""
        importer = session[0]
        for recall in segment.recalls:
            self._keep(session, recall.taken.frames_of(importer))
            recall.taken.holders.pop(importer, None)
        ranges = segment.table.held_by(importer, 0, segment.pages)
        for page, count in ranges:
            self._keep(session, frames_of(segment, page, count))
        self._exporter.drop(segment, importer, ranges)
        return ranges

    def _keep(self, session: Session, frames: Vector) -> None:
        if len(frames):
            self._services.memory.frames.quarantine(frames)
            self._quarantine[session].append(frames)

    def _count(self, session: Session) -> int:
        return sum(len(vector) for vector in self._quarantine.get(session, ()))

    async def _migrate(self, session: Session, work: list[tuple[Segment, list[Range]]]) -> None:
        moved = 0
        for segment, ranges in work:
            for page, count in ranges:
                if not self._count(session):
                    break  # proven gone meanwhile: nothing can be written late
                start = segment.vaddr + (page << PAGE_SHIFT)
                moved += await self._move(segment, start, count << PAGE_SHIFT)
        self._services.tracer.emit(
            events.FenceEnd(importer=session[0], incarnation=session[1], moved=moved)
        )

    async def _move(self, segment: Segment, start: int, length: int) -> int:
        if segment.group.mm.dead:
            return 0
        try:
            return await migrate_range(segment.group.mm, start, length)
        except KernelError as error:
            # Its data may not stay where a lost partition can write, and there is nowhere else.
            why = f"no frames to move its memory out of reach of a lost partition: {error}"
            self._services.kill(segment.group.tgid, SignalInfo(Signal.SIGKILL, why, start))
            return 0


def frames_of(segment: Segment, page: int, count: int) -> Vector:
    """The frames of the known pages of a range."""
    parts = [
        numbers(frame, length)
        for _, frame, length, _ in segment.table.extents(page, count)
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])
