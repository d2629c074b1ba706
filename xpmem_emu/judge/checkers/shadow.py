"""S13 and S14: calls and answers against a model of what they should have done.

S13: nobody gets a permit, an attachment, an access or an atomic operation that the model says is
never allowed, and an access that is certainly allowed gets no SIGSEGV and no SIGBUS.

S14: every byte of every page of every task is what was last stored there - its own memory after
fork, copy on write, exec, mremap, swap and migration, files through their page cache and pread -
whoever loads it; when all is quiet, frames and swap slots are read raw and compared as well.

What it knows, and what it forgets where calls cross, is in `judge/shadow`.
"""

from collections.abc import Callable
from functools import partial

from xpmem_emu.failpoints.events import PointSet
from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.raw import page_bytes
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.judge.shadow.accesses import CONTENTS, RIGHTS, AccessJudge
from xpmem_emu.judge.shadow.cells import Order
from xpmem_emu.judge.shadow.devices import Guests, as_load, as_store, unless_refused
from xpmem_emu.judge.shadow.files import Files
from xpmem_emu.judge.shadow.refusals import judged, refusal
from xpmem_emu.judge.shadow.sharing import SharedDevice
from xpmem_emu.judge.shadow.spaces import Finish, Spaces
from xpmem_emu.judge.shadow.stores import Stores
from xpmem_emu.judge.shadow.world import (
    Creds,
    ShadowPage,
    ShadowPartition,
    ShadowSegment,
    ShadowTask,
)
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import Poison
from xpmem_emu.kernel.call import op_of
from xpmem_emu.kernel.device_calls import BteCopy, DeviceLoad, DeviceStore, GuestSlot
from xpmem_emu.kernel.events import KernelBoot, KernelPanic, TaskExit, TaskSignal
from xpmem_emu.kernel.interface import Done, Failed, Outcome, Reply, Request
from xpmem_emu.units import PAGE_SHIFT

_SIGKILL = 9


class Shadow(Checker):
    """Follows every call of every partition."""

    judges = (Invariant.S13, Invariant.S14)
    looks_at = (
        "every call and answer against a model (`judge/shadow`) of areas, pages, files, "
        "permits and identities, those that must be refused and their errnos among them; all "
        "memory, swap and ends of files when quiet"
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._clock = Order()
        self._machines: dict[int, ShadowPartition] = {}
        segments: dict[int, ShadowSegment] = {}
        stores = Stores(self._clock, self._machines, segments)
        self._spaces = Spaces(self._clock, stores, self._inherited, partial(self.report, RIGHTS))
        self._files = Files(self._clock)
        extension = scene.image.extensions.readonly_attach
        self._sharing = SharedDevice(self._clock, segments, self._spaces, self._step, extension)
        self._accesses = AccessJudge(
            self._clock, self._machines, segments, stores, self._step, self._bound
        )
        self._guests = Guests()
        self._armed: set[int] = set()
        """Partitions where a failpoint was set: there any call may fail with any errno."""
        self._open: dict[int, tuple[int, int, Finish]] = {}
        """Calls under way: (partition, begin, what to do with the answer)."""

    def handlers(self) -> EventHandlers:
        """Boots, and tasks that end."""
        return {
            KernelBoot: self._booted,
            KernelPanic: self._panicked,
            TaskSignal: self._signalled,
            TaskExit: self._exited,
            PointSet: self._failpoint,
        }

    def _inherited(self, task: ShadowTask, vpn: int, page: ShadowPage) -> bool:
        return self._accesses.inherited(task, vpn, page)

    def _step(self) -> int:
        return 0 if self.scene.cluster is None else self.scene.cluster.steps

    def _bound(self, home: int, importer: int, since: int, until: int) -> bool:
        sessions = self.scene.sessions
        return not (
            sessions.gave_up(home, importer, since, until)
            or sessions.gave_up(importer, home, since, until)
        )

    # -- partitions and tasks --------------------------------------------------------------

    def _booted(self, partid: int, event: KernelBoot) -> None:
        self.crashed(partid)
        self._machines[partid] = ShadowPartition(partid)

    def _panicked(self, partid: int, event: KernelPanic) -> None:
        self.crashed(partid)

    def crashed(self, partid: int) -> None:
        """Nothing of it is left but what its stores may still do to others."""
        self._clock.now += 1
        self._machines.pop(partid, None)
        self._guests.forget(partid)
        segments = self._sharing.segments
        for segid in [segid for segid, each in segments.items() if each.home == partid]:
            del segments[segid]
        for call_id in [each for each, what in self._open.items() if what[0] == partid]:
            self._open.pop(call_id)[2](None)

    def _signalled(self, partid: int, event: TaskSignal) -> None:
        if event.fatal:
            self._dies(partid, event.pid)

    def _dies(self, partid: int, pid: int) -> None:
        machine = self._machines.get(partid)
        task = None if machine is None else machine.tasks.get(pid)
        if machine is not None and task is not None:
            task.dying = True
            self._sharing.leaves(machine, pid)

    def _exited(self, partid: int, event: TaskExit) -> None:
        machine = self._machines.get(partid)
        if machine is not None:
            self._clock.now += 1
            self._sharing.leaves(machine, event.pid)
            self._sharing.left(event.pid, machine)
            machine.tasks.pop(event.pid, None)

    def caught(self, partid: int, pid: int, address: int, size: int) -> Callable[[], None]:
        """A task is stopped in the middle of a store; to be called when the store lands."""
        machine = self._machines.get(partid)
        task = None if machine is None else machine.tasks.get(pid)
        return _nothing if task is None else self._accesses.caught(task, address, size)

    # -- calls -----------------------------------------------------------------------------

    def asked(self, partid: int, request: Request) -> None:
        """A call begins."""
        machine = self._machines.get(partid)
        if machine is None:
            return
        self._clock.now += 1
        self._accesses.forgers |= self.scene.injuries.forgers
        begin = self._clock.now
        finish = self._begun(machine, request, begin)
        if finish is not None:
            self._open[request.call_id] = partid, begin, finish
            self._clock.oldest = next(iter(self._open.values()))[1]

    def answered(self, partid: int, reply: Reply) -> None:
        """A call ends."""
        known = self._open.pop(reply.call_id, None)
        if known is not None:
            self._clock.now += 1
            known[2](reply.outcome)
            oldest = next(iter(self._open.values()), None)
            self._clock.oldest = self._clock.now if oldest is None else oldest[1]

    def _begun(self, at: ShadowPartition, request: Request, begin: int) -> Finish | None:
        call, bulk = request.call, bytes(request.bulk)
        match call:
            case calls.Spawn():
                return lambda outcome: self._spawned(at, call, outcome)
            case calls.Creat():
                return self._files.creat(at, call)
            case calls.Unlink():
                return self._files.unlink(at, call)
            case calls.Truncate():
                return self._files.truncate(at, call)
            case calls.Pwrite():
                return self._files.pwrite(at, call, bulk)
            case calls.Pread():
                return lambda outcome: self._read(at, call, outcome, begin)
            case Poison():
                at.poisoned = at.poisoned or call.home == at.partid
                return None
        task = at.tasks.get(getattr(call, "pid", 0))
        if task is None:
            return None
        expected = refusal(at, task, call, self._sharing.segments)
        finish = self._of_task(at, task, request, bulk)
        return self._refused(at.partid, call, expected, finish) if expected else finish

    def _refused(
        self, partid: int, call: calls.Call, expected: set[int], finish: Finish | None
    ) -> Finish:
        def wrong(text: str) -> None:
            self.report(RIGHTS, partid, f"{op_of(call)}: {text}")

        return judged(expected, lambda: partid not in self._armed, wrong, finish)

    def _failpoint(self, partid: int, event: PointSet) -> None:
        self._armed.add(partid)

    def _of_task(
        self, at: ShadowPartition, task: ShadowTask, request: Request, bulk: bytes
    ) -> Finish | None:
        call, spaces, sharing = request.call, self._spaces, self._sharing
        match call:
            case calls.Mmap():
                return spaces.mmap(at, task, call)
            case calls.Munmap():
                return spaces.munmap(at, task, call)
            case calls.Mprotect():
                return spaces.mprotect(at, task, call)
            case calls.Madvise():
                return spaces.madvise(at, task, call)
            case calls.ZapPageRange():
                return spaces.zap(at, task, call)
            case calls.Mremap():
                return spaces.mremap(at, task, call)
            case calls.Fork():
                return spaces.fork(at, task, call)
            case calls.Exec():
                return _both(sharing.close(at, task), spaces.exec(at, task, call))
            case calls.Setuid():
                return spaces.setuid(at, task, call)
            case calls.Exit():
                return self._ending(at, task)
            case calls.Kill(signal=signal) if signal == _SIGKILL:
                return self._ending(at, task)
            case calls.Load():
                return self._accesses.load(at, task, call, self._reporter(at))
            case calls.Store():
                return self._accesses.store(at, task, call, bulk, self._reporter(at))
            case calls.AtomicOp():
                return self._accesses.amo(at, task, call, self._reporter(at))
        return self._of_device(at, task, request)

    def _of_device(self, at: ShadowPartition, task: ShadowTask, request: Request) -> Finish | None:
        call, sharing, bulk = request.call, self._sharing, bytes(request.bulk)

        def wrong(text: str) -> None:
            self.report(RIGHTS, at.partid, text)

        match call:
            case calls.XpmemOpen():
                return sharing.open(task)
            case calls.XpmemClose():
                return sharing.close(at, task)
            case calls.XpmemMake():
                return sharing.make(at, task, call)
            case calls.XpmemRemove():
                return sharing.remove(at, task, call)
            case calls.XpmemGet():
                return sharing.get(at, task, call, wrong)
            case calls.XpmemRelease():
                return sharing.release(at, task, call)
            case calls.XpmemAttach():
                return sharing.attach(at, task, call, wrong)
            case calls.XpmemDetach():
                return sharing.detach(at, task, call)
            case BteCopy():
                return self._accesses.transfer(task, call)
            case calls.XpmemCopy():
                return self._accesses.copy(at, task, call)
            case GuestSlot():
                self._guests.slot(at, task, call)
            case DeviceLoad():
                address = self._guests.address(at, task, call, call.size)
                if address is not None:
                    load = as_load(call, address)
                    judge = self._accesses.load(at, task, load, self._reporter(at))
                    return unless_refused(judge)
            case DeviceStore():
                address = self._guests.address(at, task, call, len(bulk))
                if address is None:
                    task.wild = True
                else:
                    store = as_store(call, address)
                    judge = self._accesses.store(at, task, store, bulk, self._reporter(at))
                    return unless_refused(judge)
        return None

    def _spawned(self, at: ShadowPartition, call: calls.Spawn, outcome: Outcome | None) -> None:
        if isinstance(outcome, Done) and isinstance(outcome.value, int):
            capable = call.uid == 0 if call.cap_ipc_owner is None else call.cap_ipc_owner
            creds = Creds(call.uid, tuple(call.gids), capable)
            at.tasks[outcome.value] = ShadowTask(at.partid, outcome.value, creds)

    def _ending(self, at: ShadowPartition, task: ShadowTask) -> Finish:
        self._dies(at.partid, task.pid)

        def finish(outcome: Outcome | None) -> None:
            if isinstance(outcome, Failed):
                task.wild = True  # it may live on, and nobody knows what it has

        return finish

    def _read(
        self, at: ShadowPartition, call: calls.Pread, outcome: Outcome | None, begin: int
    ) -> None:
        if isinstance(outcome, Done) and not self._accesses.forgers:
            wrong = self._files.pread(at, call, outcome, begin)
            if wrong:
                self.report(CONTENTS, at.partid, f"pread of {call.file}: {wrong}")

    def _reporter(self, at: ShadowPartition) -> "_Report":
        return _Report(self, at.partid)

    # -- when all is quiet -----------------------------------------------------------------

    def settled(self) -> None:
        """No call is under way: look at memory itself."""
        self._clock.now += 1
        for partid, machine in self._machines.items():
            kernel = self.scene.kernels.get(partid)
            if kernel is None or kernel.stopped is not None or machine.poisoned:
                continue
            for name, file in machine.files.items():
                inode = kernel.memory.files.by_name.get(name)
                if inode is not None and file.size not in (None, inode.size):
                    text = f"file {name} has {inode.size} bytes, with {file.size} there"
                    self.report(CONTENTS, partid, text)
            for task in machine.tasks.values():
                if task.wild or task.dying:
                    continue
                for vpn, page in task.pages.items():
                    if not page.known:
                        continue
                    cell, end = self._accesses.readable(machine, task, vpn, self._clock.now)
                    raw = page_bytes(kernel, task.pid, vpn)
                    if cell is None or raw is None:
                        continue
                    wrong = cell.differs(0, raw[:end], self._clock.now)
                    if wrong:
                        text = f"task {task.pid} has at {vpn << PAGE_SHIFT:#x}: {wrong}"
                        self.report(CONTENTS, partid, text)


class _Report:
    """Says what is wrong on one partition."""

    def __init__(self, judge: Shadow, partid: int) -> None:
        self._judge = judge
        self._partid = partid

    def __call__(self, invariant: Invariant, text: str) -> None:
        self._judge.report(invariant, self._partid, text)


def _nothing() -> None:
    """Nobody is judged by it."""


def _both(first: Finish, second: Finish) -> Finish:
    def finish(outcome: Outcome | None) -> None:
        first(outcome)
        second(outcome)

    return finish
