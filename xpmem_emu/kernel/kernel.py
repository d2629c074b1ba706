"""One simulated kernel image: `step(now_ns, event) -> effects`, and nothing else.

Composes the scheduler, memory management, XPC and XPMEM, and is the only object that the
harnesses hold. It does no I/O, reads no clock and draws no randomness: the same events at the
same times give the same effects, byte for byte (D1).

A KernelBug, or any exception that nobody foresaw, panics this kernel: it says why and where, tells
its peers that it goes (sources 3.3, the crash path) and never does anything again. No other
partition is affected (S11). However a kernel ends, every call is answered, also one that comes
when it has stopped.
"""

import errno
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from xpmem_emu import codec
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError, Signal, SignalInfo, Signalled, errno_name
from xpmem_emu.failpoints import Failpoints
from xpmem_emu.failpoints.points import CALL_ANSWER, CALL_BEGIN, WINDOW_MAP
from xpmem_emu.image import Image
from xpmem_emu.kernel import events
from xpmem_emu.kernel.admission import Admission, Purpose
from xpmem_emu.kernel.calls import Call, Shutdown, Value
from xpmem_emu.kernel.interface import (
    Done,
    Effects,
    Failed,
    Forged,
    Halt,
    KernelEvent,
    LinkDown,
    Outcome,
    Panic,
    ProcessGone,
    Raised,
    Receive,
    Reply,
    Request,
    Send,
    Tick,
)
from xpmem_emu.kernel.tasks import Task, TaskTable
from xpmem_emu.mm.mm_types import MemoryContext
from xpmem_emu.mmu.gru import Gru
from xpmem_emu.sched import LockDep, Scheduler, Thread
from xpmem_emu.trace import Tracer
from xpmem_emu.xpc.messages import RsvdPage
from xpmem_emu.xpc.peers import Peers
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpc.remote import EPOCH_BITS
from xpmem_emu.xpc.xpc import Xpc
from xpmem_emu.xpmem.module import Xpmem
from xpmem_emu.xpmem.recall import MEM_CHANNEL
from xpmem_emu.xpmem.services import Services


class PeerMemory(Protocol):
    """How a kernel reaches the memory of peers of its coherence domain."""

    def describe(self) -> str:
        """Descriptor of our own arena; travels in the reserved page."""
        ...

    def map(self, partid: int, boot: int, descriptor: str) -> memoryview:
        """The memory of a peer, read-write. Raises KernelError."""
        ...

    def unmap(self, partid: int) -> None:
        """The peer's memory is not used any more."""
        ...


Returned = tuple[Value, Buffer]
"""(value, bulk)."""
Handler = Callable[[Any, Any, Any, Buffer], Awaitable[Returned]]
"""(kernel, call, its task or None, bulk) -> (value, bulk)."""
Handlers = Mapping[type[Call], Handler]
"""What serves which call. It is handed in where a kernel is put together (`boot`): nothing here
knows the handlers, and they know the kernel."""


class _Halted(Exception):
    """Leaves the thread that shut the kernel down; nothing runs after it."""


class Kernel:
    """One partition's kernel."""

    def __init__(
        self,
        *,
        partid: int,
        boot: int,
        image: Image,
        arena: memoryview,
        swap: memoryview,
        peers: Peers,
        peer_memory: PeerMemory,
        handlers: Handlers,
        audit: "Callable[[Kernel], None] | None" = None,
    ) -> None:
        """`handlers` serve the calls. `audit` looks at this kernel after each step in which
        something happened; what it raises is a panic."""
        self.partid, self.boot, self.image = partid, boot, image
        self.scheduler = Scheduler()
        self.lockdep = LockDep()
        self.tracer = Tracer(partid, self.scheduler)
        self.failpoints = Failpoints(self.scheduler, self.tracer)
        self.memory = MemoryContext(
            partid, image, arena, swap, self.scheduler, self.lockdep, self.tracer, self.failpoints
        )
        self.xpc = Xpc(
            partid=partid,
            boot=boot,
            image=image,
            arena=peer_memory.describe(),
            peers=peers,
            scheduler=self.scheduler,
            lockdep=self.lockdep,
            tracer=self.tracer,
            transport=self,
            listener=self,
            failpoints=self.failpoints,
        )
        self.services = Services(
            partid, boot, image, self.scheduler, self.tracer, self.memory, self.xpc, self.kill
        )
        self.xpmem = Xpmem(self.services)
        self.gru = Gru(image.mmu, self.tracer)
        self.tasks = TaskTable(image, self.scheduler, self.tracer, self.memory)
        self._peer_memory = peer_memory
        self._handlers = handlers
        self._audit = audit
        self._audited = -1
        """Events there were at the last audit: with none since, nothing is thought to change."""
        self._admission = Admission(image.limits.threads, self.scheduler)
        self._calls: dict[int, Call] = {}
        """Begun and not answered, by Request.call_id."""
        self._effects = Effects()
        self.stopping = False
        """Whether a shutdown is under way: no work begins any more."""
        self.stopped: Panic | Halt | None = None
        self.booted_ns: int | None = None
        """When the first step happened."""
        self.xpc.register(MEM_CHANNEL, self.xpmem)
        self.tracer.emit(events.KernelBoot(boot=boot, image=image.name, frames=image.memory.frames))
        self.xpc.start()

    def step(self, now_ns: int, event: KernelEvent) -> Effects:
        """Take one event at time `now_ns` (monotonic nanoseconds), run until all threads sleep,
        and say what came of it. Never raises."""
        if self.booted_ns is None:
            self.booted_ns = now_ns
        if self.stopped is None:
            try:
                self.scheduler.advance(now_ns)
                self._take(event)
                self.scheduler.run(now_ns, idle=isinstance(event, Tick))
                if self._audit is not None and self._audited != self.tracer.count:
                    self._audited = self.tracer.count
                    self._audit(self)
            except _Halted as halted:
                self._halt(str(halted))
            except Exception as error:
                self._panic(error)
        elif isinstance(event, Request):
            self._effects.replies.append(Reply(event.call_id, self._no_more()))
        effects, self._effects = self._effects, Effects()
        effects.trace = self.tracer.drain()
        effects.stopped = self.stopped
        effects.wake_at_ns = None if self.stopped else self.scheduler.next_deadline_ns()
        return effects

    def kill(self, pid: int, info: SignalInfo) -> None:
        """Send a fatal signal. Atomic; nobody waits for the task to be gone here."""
        task = self.tasks.get(pid)
        if task is not None:
            self._signal(task, info)

    @property
    def calls_pending(self) -> int:
        """Calls that have begun and not been answered."""
        return len(self._calls)

    # -- events ------------------------------------------------------------------------------

    def _take(self, event: KernelEvent) -> None:
        match event:
            case Receive(frames=frames):
                self.xpc.receive(frames)
            case Request():
                self._begin_call(event)
            case ProcessGone(partid=partid, boot=boot, pid=pid):
                self._process_gone(partid, boot, f"process {pid}" if pid else "the process")

            case Forged(partid=partid, claimed=claimed):
                if partid in self.xpc.partitions:
                    place = f"it sent a message in the name of p{claimed}"
                    self.xpc.deactivate(partid, Reason.INVALID_PARTID, place)

    def _process_gone(self, partid: int, boot: int, process: str) -> None:
        """The process of that boot has ended. A session with it ends now: if it ended later, its
        frames would go into quarantine when the proof has come and gone."""
        session = self.xpc.incarnation(partid)
        if session is not None and session >> EPOCH_BITS == boot:
            self.xpc.deactivate(partid, Reason.PARTITION_DOWN, "its process is gone")
        self.xpmem.fence.prove_gone(partid, boot, f"{process} is gone")

    def _begin_call(self, request: Request) -> None:
        self._calls[request.call_id] = request.call
        purpose = Purpose.of(request.call)
        wrong = codec.misfit(request.call)
        refusal = Failed(errno.EINVAL, wrong) if wrong else self._no_place(purpose)
        if refusal is not None:
            self._answer(request.call_id, refusal)
            return
        self._admission.under_way[purpose] += 1
        op = str(request.call.__struct_config__.tag)
        pid = getattr(request.call, "pid", 0)
        self.scheduler.spawn(f"{op}/{pid}", self._run_call(request, purpose, op, pid))

    def _no_place(self, purpose: Purpose) -> Failed | None:
        """Why a call may not begin."""
        if self.stopping and purpose is Purpose.WORK:
            return Failed(errno.ESHUTDOWN, f"p{self.partid} is shutting down", "xpmem-emu ps")
        failing = purpose is not Purpose.BREAKING and self.failpoints.armed
        if self._admission.full(purpose) or (failing and self.failpoints.failing(CALL_BEGIN)):
            return Failed(
                errno.EAGAIN,
                f"{self._admission.limit} threads run, the image's limit",
                "try again later; `failpoint ls` shows whether calls are paused",
            )
        return None

    async def _run_call(self, request: Request, purpose: Purpose, op: str, pid: int) -> None:
        self.tracer.emit(events.Syscall(pid=pid, op=op))
        outcome = await self._outcome(request)
        held_up = purpose not in (Purpose.BREAKING, Purpose.ENDING)
        if self.failpoints.armed and held_up:
            await self.failpoints.reach(CALL_ANSWER)
        self.tracer.emit(events.SyscallDone(pid=pid, op=op, outcome=outcome_name(outcome)))
        self._admission.under_way[purpose] -= 1
        self._answer(request.call_id, outcome)
        if isinstance(request.call, Shutdown) and isinstance(outcome, Done):
            raise _Halted(request.call.reason)

    async def _outcome(self, request: Request) -> Outcome:
        task: Task | None = None
        thread = self.scheduler.current
        assert thread is not None
        try:
            # Found and entered into `threads` in one step: who ends the task, or execs, from now on
            # kills this thread and waits for it.
            task = self.tasks.caller(request.call)
            if task is not None:
                thread.owner = task
                task.threads[thread] = None
            serve = self._handlers.get(type(request.call))
            if serve is None:
                what = type(request.call).__name__
                raise KernelError(errno.ENOSYS, f"{what} is not a call of this kernel")
            # Sleeps. Whatever becomes of the task, it and its memory wait for this call.
            value, bulk = await serve(self, request.call, task, request.bulk)
            return Done(value, bulk)
        except (KernelError, Signalled) as error:
            return self._refused(thread, task, error)
        finally:
            if task is not None:
                del task.threads[thread]
                thread.owner = None
                task.idle.wake_all()

    def _refused(
        self, thread: Thread, task: Task | None, error: KernelError | Signalled
    ) -> Outcome:
        if task is not None and thread.killed:
            # Whatever it met on its way out: this thread ends, and says nothing of the task.
            return Raised(task.fate or SignalInfo(Signal.SIGKILL, task.ending()))
        if isinstance(error, Signalled):
            assert task is not None
            return Raised(self._signal(task, error.info))
        return Failed(error.errno, error.cause, error.remedy)

    def _signal(self, task: Task, info: SignalInfo) -> SignalInfo:
        """Deliver a signal to `task`; what its call is told."""
        # It died of another one while this call slept: that is what its calls are told.
        if task.fate is not None:
            return task.fate
        task.last_signal = info
        masked = info.forced or info.signal is Signal.SIGKILL
        fatal = masked or int(info.signal) not in task.handled
        self.tracer.emit(
            events.TaskSignal(
                pid=task.pid, signal=info.signal.name, fatal=fatal, reason=info.reason
            )
        )
        if fatal:
            self.tasks.end(task, info, info.describe())
        return info

    # -- effects -----------------------------------------------------------------------------

    def _answer(self, call_id: int, outcome: Outcome) -> None:
        del self._calls[call_id]
        self._effects.replies.append(Reply(call_id, outcome))

    def send(self, partid: int, kind: str, number: int, frames: list[Buffer]) -> None:
        """Transport of XPC: put a message on the interconnect."""
        self._effects.sends.append(Send(partid, kind, number, frames))

    def link_down(self, partid: int, reason: str) -> None:
        """Transport of XPC: nothing queued towards `partid` may still be sent."""
        self._effects.sends.append(LinkDown(partid, reason))

    def _panic(self, error: Exception) -> None:
        """Stop for ever. The place is the thread and the innermost line of this code."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        module = frame.filename.rpartition("xpmem_emu/")[2]
        place = f"{self.scheduler.thread_name()}: {module}:{frame.lineno} in {frame.name}"
        reason = f"{type(error).__name__}: {error}"
        self.tracer.emit(events.KernelPanic(reason=reason, place=place))
        self.xpc.crash()
        self._stop(Panic(reason, place))

    def _halt(self, reason: str) -> None:
        """Stop for ever, in order: the tasks are gone and the peers know."""
        self.tracer.emit(events.KernelHalt(reason=reason))
        self._stop(Halt(reason))

    def _stop(self, stopped: Panic | Halt) -> None:
        self.stopped = stopped
        # Here, because threads that are dropped do not come to it.
        for call_id in list(self._calls):
            self._answer(call_id, self._no_more())
        self.scheduler.close()

    def discard(self) -> None:
        """Nobody will step this kernel any more, perhaps nobody ever did: its threads end where
        they are."""
        self.scheduler.close()

    def _no_more(self) -> Failed:
        """The answer of a kernel that has stopped."""
        if isinstance(self.stopped, Panic):
            return Failed(errno.EIO, f"p{self.partid} panicked: {self.stopped.reason}")
        return Failed(errno.ESHUTDOWN, f"p{self.partid} has shut down", "xpmem-emu ps")

    # -- partitions come and go --------------------------------------------------------------

    def partition_up(self, partid: int, page: RsvdPage, incarnation: int) -> None:
        """Listener of XPC: a peer is ACTIVE; map its memory if it is of our domain (sources
        T22)."""
        if page.domain != self.image.domain:
            return
        try:
            if self.failpoints.armed:
                self.failpoints.check(WINDOW_MAP)
            window = self._peer_memory.map(partid, page.boot, page.arena)
            self.memory.physical.add_window(partid, window)
        except KernelError as error:
            self.xpc.deactivate(partid, Reason.PHYS_ADDR_REG_FAILED, f"mapping its arena: {error}")

    def partition_down(self, partid: int, incarnation: int, reason: Reason, place: str) -> None:
        """Listener of XPC: a peer is lost; nothing of it is reachable when this returns."""
        why = f"p{partid} is lost: {reason.name} ({place})"
        # Entries before the window that they lead to, in one step: no access finds one half gone.
        self.xpmem.partition_down(partid, incarnation, why)
        self.memory.physical.remove_window(partid)
        self._peer_memory.unmap(partid)

    def partition_gone(self, partid: int, incarnation: int) -> None:
        """Listener of XPC: the peer proved that it left that session."""
        self.xpmem.fence.prove_left(partid, incarnation, "it rejoined in a new session")


def outcome_name(outcome: Outcome) -> str:
    """`ok`, the name of an errno, or of a signal."""
    match outcome:
        case Done():
            return "ok"
        case Failed():
            return errno_name(outcome.errno)
        case Raised():
            return outcome.info.signal.name
