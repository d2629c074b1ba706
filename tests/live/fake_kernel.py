"""A kernel that is just enough for the harness: tasks are numbers, memory is the arena itself.

It tells its peers every 50 ms who it is; a peer that is silent for 600 ms is lost. Load and Store
address the own arena; addresses from `PEER_MEMORY` on address the arenas of peers. `Describe`
has three words that make it misbehave: `panic`, `raise`, and `wait`, which is answered when
`go` is asked.
"""

import errno
from collections.abc import Callable

import msgpack

from xpmem_emu.errors import XPMEM_ERRNO_NOPROC, KernelError, Signal, SignalInfo
from xpmem_emu.image import Image
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import (
    Done,
    Effects,
    Failed,
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
)
from xpmem_emu.live.arena import ArenaMemory
from xpmem_emu.trace import Event as TraceEvent
from xpmem_emu.trace import Tracer
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpc.peers import Peers

PEER_MEMORY = 1 << 40
HELLO_NS = 50 * MILLISECOND
SILENCE_NS = 2000 * MILLISECOND


class TaskBorn(TraceEvent, frozen=True, tag="fake:task_born"):
    """A task came."""

    pid: int


class TaskGone(TraceEvent, frozen=True, tag="fake:task_gone"):
    """A task went."""

    pid: int
    reason: str


class ProcessProven(TraceEvent, frozen=True, tag="fake:process_gone"):
    """The harness proved that a process is gone."""

    peer: int
    boot: int


class PeerLost(TraceEvent, frozen=True, tag="fake:peer_lost"):
    """A peer was silent for too long."""

    peer: int


class FakeKernel:
    def __init__(
        self,
        *,
        partid: int,
        boot: int,
        image: Image,
        arena: memoryview,
        swap: memoryview,
        peers: Peers,
        peer_memory: ArenaMemory,
    ) -> None:
        assert len(arena) == image.memory.size
        assert len(swap) >= image.memory.swap
        self.partid, self.boot, self.arena, self.peers = partid, boot, arena, peers.standing
        self.memory = peer_memory
        self.now_ns = 0
        self.next_hello_ns = 0
        self.heard: dict[int, tuple[int, int]] = {}
        self.views: dict[int, memoryview] = {}
        self.tasks: dict[int, str] = {}
        self.opened: set[int] = set()
        self.last_pid = 0
        self.waiting: list[int] = []
        self.tracer = Tracer(partid, self)

    def thread_name(self) -> str:
        return "fake"

    def discard(self) -> None:
        pass

    def step(self, now_ns: int, event: KernelEvent) -> Effects:
        self.now_ns = now_ns
        effects = Effects()
        match event:
            case Receive(frames):
                self.receive(msgpack.unpackb(frames[0]))
            case Request(call_id, call, bulk):
                self.request(effects, call_id, call, bytes(bulk))
            case ProcessGone(partid, boot):
                self.tracer.emit(ProcessProven(peer=partid, boot=boot))
        self.check_peers(effects)
        effects.trace = self.tracer.drain()
        effects.wake_at_ns = self.next_hello_ns
        return effects

    def receive(self, hello: list[object]) -> None:
        partid, boot, descriptor = int(str(hello[0])), int(str(hello[1])), str(hello[2])
        if self.heard.get(partid, (0, 0))[0] != boot:
            self.views[partid] = self.memory.map(partid, boot, descriptor)
        self.heard[partid] = (boot, self.now_ns)

    def check_peers(self, effects: Effects) -> None:
        for partid, (_, heard_ns) in list(self.heard.items()):
            if self.now_ns - heard_ns > SILENCE_NS:
                del self.heard[partid], self.views[partid]
                self.memory.unmap(partid)
                effects.sends.append(LinkDown(partid, "silent"))
                self.tracer.emit(PeerLost(peer=partid))
        if self.now_ns >= self.next_hello_ns:
            self.next_hello_ns = self.now_ns + HELLO_NS
            frame = msgpack.packb([self.partid, self.boot, self.memory.describe()])
            effects.sends += [Send(peer, "HELLO", 0, [frame]) for peer in self.peers]

    def request(self, effects: Effects, call_id: int, call: calls.Call, bulk: bytes) -> None:
        match call:
            case calls.Describe(what="wait"):
                self.waiting.append(call_id)
                return
            case calls.Describe(what="go"):
                effects.replies += [Reply(waiting, Done("went")) for waiting in self.waiting]
                self.waiting.clear()
            case calls.Describe(what="waiting"):
                effects.replies.append(Reply(call_id, Done(len(self.waiting))))
                return
            case calls.Describe(what="panic"):
                effects.stopped = Panic("asked to", "fake_kernel")
                return
            case calls.Describe(what="raise"):
                raise RuntimeError("a bug of the kernel")
            case calls.Shutdown(reason=reason):
                effects.stopped = Halt(reason)
        try:
            outcome = self.answer(call, bulk)
        except KernelError as error:
            outcome = Failed(error.errno, error.cause, error.remedy)
        effects.replies.append(Reply(call_id, outcome))

    def answer(self, call: calls.Call, bulk: bytes) -> Outcome:
        match call:
            case calls.Spawn(name=name):
                return Done(self.born(name))
            case calls.Fork(pid=pid):
                return Done(self.born(self.tasks[pid] + "'"))
            case calls.Kill(pid=pid, reason=reason):
                return self.end(pid, reason)
            case calls.Exit(pid=pid):
                return self.end(pid, "exit")
            case calls.Look(kind="tasks"):
                return Done([{"pid": pid, "name": name} for pid, name in self.tasks.items()])
            case calls.Status():
                peers = {peer: {"state": self.state_of(peer)} for peer in self.peers}
                return Done({"partid": self.partid, "boot": self.boot, "peers": peers})
            case calls.XpmemOpen(pid=pid):
                self.opened.add(pid)
                return Done()
            case calls.XpmemMake(pid=pid):
                if pid not in self.opened:
                    raise KernelError(XPMEM_ERRNO_NOPROC, "no thread group")
                return Done(0x1234)
            case calls.XpmemRemove():
                raise KernelError(errno.ENOENT, "no such segment", "xpmem-emu get segments")
            case calls.Load(address=address, size=size):
                return self.access(address, size, lambda view: Done(None, bytes(view)))
            case calls.Store(address=address):
                return self.access(address, len(bulk), lambda view: self.write(view, bulk))
        return Done()

    def access(self, address: int, size: int, act: Callable[[memoryview], Outcome]) -> Outcome:
        partid, offset = address // PEER_MEMORY - 1, address % PEER_MEMORY
        view = self.arena if partid < 0 else self.views.get(partid)
        if view is None or offset + size > len(view):
            info = SignalInfo(Signal.SIGBUS, "nothing is there", address, partid=partid)
            return Raised(info)
        return act(view[offset : offset + size])

    @staticmethod
    def write(view: memoryview, data: bytes) -> Outcome:
        view[:] = data
        return Done()

    def state_of(self, peer: int) -> str:
        return "ACTIVE" if peer in self.heard else "INACTIVE"

    def born(self, name: str) -> int:
        self.last_pid += 1
        self.tasks[self.last_pid] = name
        self.tracer.emit(TaskBorn(pid=self.last_pid))
        return self.last_pid

    def end(self, pid: int, reason: str) -> Outcome:
        if self.tasks.pop(pid, None) is None:
            raise KernelError(errno.ESRCH, f"no task {pid}")
        self.tracer.emit(TaskGone(pid=pid, reason=reason))
        return Done()
