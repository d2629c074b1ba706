"""Writing a program: the vocabulary that all workloads share.

Numbers of tasks, regions and the rest are drawn from one counter for the whole plan. Time goes on
by `pause`; several operations at one time race with each other, which is the point.
"""

from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from xpmem_emu.sim.plan import Knobs, Op, Operation, RegionKind
from xpmem_emu.units import MILLISECOND

WORDS = 3
"""Tracked words of a page."""
SETTLE_NS = 6 * MILLISECOND
"""Time that a program leaves between making something and using it."""
_PAUSES = (0, 0, 0, 20_000, 200_000, 1_000_000, 4_000_000)


@dataclass(frozen=True, slots=True)
class Export:
    """A region that is exported whole."""

    task: int
    region: int
    segment: int
    pages: int


@dataclass(frozen=True, slots=True)
class Import:
    """An attachment of a task to `pages` pages of an export from `first` on."""

    task: int
    export: Export
    permit: int
    attachment: int
    first: int
    pages: int


Area = Export | Import


@dataclass
class Script:
    """The program under construction. `budget` is how many operations a workload may write."""

    random: Random
    knobs: Knobs
    now_ns: int
    budget: int
    numbers: "count[int]" = field(default_factory=lambda: count(1))
    operations: list[Operation] = field(default_factory=list)

    def do(self, op: Op, **fields: Any) -> None:
        """Append an operation at the present time."""
        self.operations.append(Operation(self.now_ns, op, **fields))

    def number(self) -> int:
        """A number that nothing has yet."""
        return next(self.numbers)

    def more(self) -> bool:
        """Whether the budget allows another operation."""
        return len(self.operations) < self.budget

    def pause(self) -> None:
        """Let a random time pass, often none."""
        self.now_ns += self.random.choice(_PAUSES)

    def soon(self, most_ns: int) -> None:
        """Let less than `most_ns` pass, so that what comes next meets what is under way."""
        self.now_ns += self.random.randrange(most_ns)

    def settle(self) -> None:
        """Let enough time pass for calls without faults to end."""
        self.now_ns += SETTLE_NS

    def partition(self) -> int:
        """Any partition."""
        return self.random.randrange(self.knobs.partitions)

    def spawn(self, partid: int, uid: int = 0) -> int:
        """A task with the device open."""
        made = next(self.numbers)
        self.do(Op.SPAWN, made=made, partid=partid, uid=uid)
        return made

    def export(self, task: int, pages: int, kind: RegionKind, mode: int = 0o666) -> Export:
        """Map a region and export it."""
        export = Export(task, next(self.numbers), next(self.numbers), pages)
        self.do(Op.MMAP, task=task, made=export.region, pages=pages, detail=kind)
        self.settle()
        self.do(
            Op.MAKE, task=task, made=export.segment, region=export.region, pages=pages, mode=mode
        )
        return export

    def attach(
        self, task: int, export: Export, first: int, pages: int, flags: int = 2, **place: int
    ) -> Import:
        """Get and attach part of an export, at a place of its own or at `beside` and `slot`."""
        made = Import(task, export, next(self.numbers), next(self.numbers), first, pages)
        self.do(Op.GET, task=task, made=made.permit, segment=export.segment, flags=flags)
        self.settle()
        self.do(
            Op.ATTACH,
            task=task,
            made=made.attachment,
            permit=made.permit,
            page=first,
            pages=pages,
            **place,
        )
        return made

    def exports(self, tasks: list[int], kinds: tuple[RegionKind, ...]) -> list[Export]:
        """One export for each task, of random size."""
        most = max(2, min(12, self.knobs.frames // 16))
        made = [
            self.export(task, self.random.randint(2, most), self.random.choice(kinds))
            for task in tasks
        ]
        self.settle()
        return made

    def imports(self, tasks: list[int], exports: list[Export]) -> list[Import]:
        """Each task attaches a part of a random export."""
        made = []
        for task in tasks:
            export = self.random.choice(exports)
            first = self.random.randrange(export.pages)
            pages = self.random.randint(1, export.pages - first)
            made.append(self.attach(task, export, first, pages))
        self.settle()
        return made

    def touch(self, place: Area, op: Op, device: str = "") -> None:
        """A load or store of a word, sometimes of whole pages, by the processor or a device."""
        page = self.random.randrange(place.pages)
        pages = 0
        if self.random.random() < 0.15:
            pages = self.random.randint(1, place.pages - page)
        self.do(
            op,
            task=place.task,
            page=page,
            pages=pages,
            word=self.random.randrange(WORDS),
            device=device,
            **where(place),
        )

    def part(self, export: Export) -> tuple[int, int]:
        """Some pages of an export: first page and how many."""
        first = self.random.randrange(export.pages)
        return first, self.random.randint(1, export.pages - first)


def where(place: Area) -> dict[str, int]:
    """The fields of an operation that name a place."""
    if isinstance(place, Import):
        return {"attachment": place.attachment}
    return {"region": place.region}
