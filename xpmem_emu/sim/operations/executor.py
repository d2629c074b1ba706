"""The stage: carries out the operations of a plan and records what came of them.

Calls are started at their time and never waited for; what a successful one made is entered in
the cast when its answer comes. An operation whose parts do not exist is passed over.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol

from xpmem_emu.codec import Buffer
from xpmem_emu.judge.history import ABSENT, FOREVER, History, Wipe
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.call import op_of
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.interface import Done, Failed
from xpmem_emu.kernel.kernel import outcome_name
from xpmem_emu.sim.operations.accesses import Accesses
from xpmem_emu.sim.operations.everyday import ON_REGION, ON_TASK, call_of
from xpmem_emu.sim.operations.registry import (
    UNTRACKED,
    KnownPermit,
    KnownSegment,
    Region,
    Registry,
    TaskKey,
    View,
    planned_address,
)
from xpmem_emu.sim.operations.situations import CallSituations
from xpmem_emu.sim.operations.special import SpecialOperations
from xpmem_emu.sim.plan import Op, Operation, RegionKind
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.units import PAGE_SIZE

_PRIVATE = calls.MAP_PRIVATE | calls.MAP_ANONYMOUS
_MAP_FLAGS = {
    RegionKind.PRIVATE: _PRIVATE,
    RegionKind.SHARED: calls.MAP_SHARED | calls.MAP_ANONYMOUS,
    RegionKind.FILE: calls.MAP_SHARED,
    RegionKind.UNCACHED: _PRIVATE | calls.MAP_UNCACHED,
    RegionKind.MSPEC: calls.MAP_SHARED | calls.MAP_ANONYMOUS | calls.MAP_MSPEC,
    RegionKind.COPY: calls.MAP_PRIVATE,
    RegionKind.SCRATCH: _PRIVATE,
}
_FILES = (RegionKind.FILE, RegionKind.COPY)
_NOTHING = Operation(0, Op.SPAWN)
Made = Callable[[int], None]
KillAtSleep = Callable[[int, str, int], None]
"""Kill the task of the next call on a partition, named as its thread is, at its nth sleep."""


class ExecutorCluster(Protocol):
    """What a stage asks of the cluster that it plays on."""

    @property
    def steps(self) -> int:
        """The time, as a number that grows with everything that happens."""

    def boot_of(self, partid: int) -> int:
        """The newest boot of a partition, 0 when it never ran."""

    def panicked(self, partid: int) -> bool:
        """Whether its kernel panicked, so that nobody knows what became of its calls."""

    def submit(
        self,
        partid: int,
        call: Call,
        bulk: Buffer = b"",
        then: Callable[[Ticket], None] | None = None,
    ) -> Ticket:
        """Begin a call; `then` is told of its end."""


class Executor:
    """The tasks of one run."""

    def __init__(
        self,
        cluster: ExecutorCluster,
        fatal: KillAtSleep = lambda partid, thread, nth: None,
        reach: Callable[[str], None] = lambda situation: None,
    ) -> None:
        """`reach` is told of situations."""
        self._cluster = cluster
        self._fatal = fatal
        self._now = _NOTHING
        """The operation that is being performed."""
        self.cast = Registry()
        self._deeds = CallSituations(self.cast, reach)
        self.history = History()
        self.outcomes: Counter[str] = Counter()
        """How calls ended: `store ok`, `load SIGBUS`."""
        self.accesses = Accesses(self.cast, self.history, self.begin, lambda: cluster.steps)
        acts = SpecialOperations(
            self.cast, self.history, self.accesses, self.begin, lambda: cluster.steps, reach
        )
        self._do: dict[Op, Callable[[Operation, TaskKey], None]] = {
            **dict.fromkeys(ON_TASK, self._everyday),
            **dict.fromkeys((Op.REMAP, *ON_REGION), self._move),
            Op.MMAP: self._mmap,
            Op.LOAD: self.accesses.load,
            Op.STORE: self.accesses.store,
            Op.AMO: self.accesses.amo,
            Op.BTE: self.accesses.bte,
            **acts.operations(),
        }

    def perform(self, operation: Operation) -> None:
        """Start one operation."""
        self._now = operation
        self._perform(operation)
        self._now = _NOTHING

    def _perform(self, operation: Operation) -> None:
        if operation.op is Op.SPAWN:
            self._spawn(operation)
            return
        actor = self.cast.tasks.get(operation.task)
        if actor is not None:
            self._do[operation.op](operation, actor)

    def unlink(self, partid: int, name: str) -> None:
        """Remove a file of a partition."""
        self.begin(TaskKey(partid, self._cluster.boot_of(partid), 0), calls.Unlink(name))

    # -- tasks -----------------------------------------------------------------------------

    def _spawn(self, operation: Operation) -> None:
        partid = operation.partid
        boot = self._cluster.boot_of(partid)

        def spawned(pid: int) -> None:
            actor = self.cast.tasks[operation.made] = TaskKey(partid, boot, pid)
            self.begin(actor, calls.XpmemOpen(pid))

        self.begin(TaskKey(partid, boot, 0), calls.Spawn(uid=operation.uid), made=spawned)

    # -- regions ---------------------------------------------------------------------------

    def _mmap(self, operation: Operation, actor: TaskKey) -> None:
        kind = RegionKind(operation.detail)
        same = self.cast.regions.get(operation.region)
        file = f"f{operation.made}" if kind in _FILES else ""
        length = operation.pages * PAGE_SIZE
        number = UNTRACKED if kind is RegionKind.SCRATCH else operation.made
        if same is not None and same.file and kind in _FILES:
            file = same.file
            # Two shared mappings of a file have their words in common; what a private one has
            # that nobody wrote through it is not said.
            number = same.number if kind is RegionKind.FILE else UNTRACKED
            self.cast.twice.add(same.number)
        elif file:
            self.begin(actor, calls.Creat(file, length))
        address = planned_address(operation)

        def mapped(address: int) -> None:
            self.cast.regions[operation.made] = Region(
                number, operation.task, actor, address, operation.pages, kind, file
            )

        if operation.beside:
            self.cast.covered.append((actor, address, address + length))
        flags = _MAP_FLAGS[kind] | calls.MAP_FIXED
        mmap = calls.Mmap(actor.pid, length, 3, flags, address, file)
        self.begin(actor, mmap, made=mapped)

    def _move(self, operation: Operation, actor: TaskKey) -> None:
        """Something that makes pages of a region move or go."""
        region = self.cast.regions.get(operation.region)
        if region is None or region.actor != actor:
            return
        if operation.op is Op.REMAP:
            call = _remapping(operation, region)
        else:
            call = call_of(operation, actor, self.cast)
        if call is None:
            return
        value = _wiped(operation, region)
        if operation.op is Op.MUNMAP and region.number in self.cast.twice:
            value = None
        page, pages = operation.page, operation.pages
        if operation.op is Op.TRUNCATE:
            if not self.cast.cut(region, page):
                return
            pages = region.pages - page
        begin = self._cluster.steps + 1

        def ended(ticket: Ticket) -> None:
            refused = isinstance(ticket.outcome, Failed)
            if value is not None and not refused and region.number != UNTRACKED:
                sure = isinstance(ticket.outcome, Done)
                end = self._cluster.steps if sure else FOREVER
                self.history.wipes.append(Wipe(region.number, page, pages, value, begin, end, sure))

        self.begin(actor, call, then=ended)

    # -- everyday calls --------------------------------------------------------------------

    def _everyday(self, operation: Operation, actor: TaskKey) -> None:
        call = call_of(operation, actor, self.cast)
        if call is not None:
            since = self._cluster.steps
            self.begin(actor, call, made=partial(self._note, operation, actor, since))

    def _note(self, operation: Operation, actor: TaskKey, since: int, value: int) -> None:
        """Enter what a call made, which was begun at step `since`."""
        cast, made, page = self.cast, operation.made, operation.page
        match operation.op:
            case Op.FORK:
                cast.tasks[made] = TaskKey(actor.partid, actor.boot, value)
            case Op.MAKE:
                number = cast.regions[operation.region].number
                cast.segments[made] = KnownSegment(value, number, page)
            case Op.GET:
                segment = cast.segments[operation.segment]
                cast.permits[made] = KnownPermit(value, actor, segment, since)
            case Op.ATTACH:
                permit = cast.permits[operation.permit]
                region, first = permit.segment.region, permit.segment.page
                cast.views[made] = View(
                    actor, value, region, first + page, operation.pages, permit.since
                )

    # -- calls -----------------------------------------------------------------------------

    def begin(
        self,
        actor: TaskKey,
        call: Call,
        bulk: bytes = b"",
        then: Callable[[Ticket], None] | None = None,
        made: Made | None = None,
    ) -> None:
        """Start a call of a task, unless its partition has rebooted since."""
        if self._cluster.boot_of(actor.partid) != actor.boot:
            return
        name = op_of(call)
        operation = self._now
        if operation.fatal:
            self._fatal(actor.partid, f"{name}/{actor.pid}", operation.fatal)

        def ended(ticket: Ticket) -> None:
            if self._cluster.panicked(actor.partid):
                ticket.outcome, ticket.lost = None, True  # nobody knows what became of it
            self.outcomes[f"{name} {how_ended(ticket)}"] += 1
            if then is not None:
                then(ticket)
            self._deeds.ended(operation, actor, call, ticket)
            if made is not None and isinstance(ticket.outcome, Done):
                made(ticket.outcome.value)

        self._cluster.submit(actor.partid, call, bulk, ended)


def how_ended(ticket: Ticket) -> str:
    """`ok`, the name of an errno or a signal, or `lost`."""
    return "lost" if ticket.outcome is None else outcome_name(ticket.outcome)


def _remapping(operation: Operation, region: Region) -> Call | None:
    """Other memory of the same kind over pages of a region; None when that would bring up words
    that others have written."""
    if region.file or region.kind is RegionKind.SHARED:
        return None
    start, length = region.address + operation.page * PAGE_SIZE, operation.pages * PAGE_SIZE
    return calls.Mmap(region.actor.pid, length, 3, _MAP_FLAGS[region.kind] | calls.MAP_FIXED, start)


def _wiped(operation: Operation, region: Region) -> int | None:
    """What the words of the pages are afterwards; None when they keep what they have."""
    private = region.kind in (
        RegionKind.PRIVATE,
        RegionKind.UNCACHED,
        RegionKind.COPY,
        RegionKind.SCRATCH,
    )
    match operation.op:
        case Op.MUNMAP | Op.TRUNCATE:
            return ABSENT
        case Op.REMAP:
            return 0
        case Op.DONTNEED if private:
            return 0
        case Op.PUNCH if not private:
            return 0
    return None
