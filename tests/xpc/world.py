"""Several Xpc instances on virtual time, joined by a wire that loses, repeats and reorders.

Not the simulator: only what the tests of this layer need. The wire is seeded; frames are copied
as they leave, as a real wire would, and a peer that is not there swallows what it is sent.
"""

import heapq
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from xpmem_emu.codec import Buffer
from xpmem_emu.image import Image
from xpmem_emu.image import XpcSection as XpcImage
from xpmem_emu.sched import LockDep, Scheduler
from xpmem_emu.trace import Record, Tracer
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.activation import ActState
from xpmem_emu.xpc.messages import (
    Ack,
    FindName,
    FindNameReply,
    Invalidate,
    InvalidateAck,
    Message,
    RsvdPage,
)
from xpmem_emu.xpc.peers import Neighbourhood
from xpmem_emu.xpc.reasons import Ending, Reason, XpcError
from xpmem_emu.xpc.wire import Requester
from xpmem_emu.xpc.xpc import Patience, Xpc

Work = Callable[[Message], Coroutine[Any, Any, Message | tuple[Message, Buffer]]]
PATIENCE = Patience(100 * MILLISECOND, 3, 2 * SECOND)


def image(**xpc: object) -> Image:
    """The laptop image with a few keys of its xpc section changed."""
    return Image(xpc=msgspec.structs.replace(XpcImage(), **xpc))


@dataclass
class Weather:
    """What the wire does to a frame."""

    loss: float = 0.0
    repeat: float = 0.0
    latency_ns: int = 100_000
    jitter_ns: int = 0


@dataclass
class Peer:
    """A listener that remembers what it was told, in order."""

    calls: list[tuple[object, ...]] = field(default_factory=list)

    def partition_up(self, partid: int, page: RsvdPage, incarnation: int) -> None:
        self.calls.append(("up", partid, page.boot, incarnation))

    def partition_down(self, partid: int, incarnation: int, reason: Reason, place: str) -> None:
        self.calls.append(("down", partid, incarnation, reason))

    def partition_gone(self, partid: int, incarnation: int) -> None:
        self.calls.append(("gone", partid, incarnation))


@dataclass
class Echo:
    """A handler that counts what it carries out. `work` replaces the immediate answer."""

    calls: list[tuple[object, ...]] = field(default_factory=list)
    served: list[Message] = field(default_factory=list)
    work: Work | None = None

    def connected(self, partid: int) -> None:
        self.calls.append(("connected", partid))

    def disconnected(self, partid: int, reason: Reason) -> None:
        self.calls.append(("disconnected", partid, reason))

    async def received(
        self, requester: Requester, message: Message, bulk: Buffer
    ) -> Message | tuple[Message, Buffer]:
        self.served.append(message)
        if self.work is not None:
            return await self.work(message)
        assert isinstance(message, FindName)
        return FindNameReply(len(message.name))

    def late_reply(self, partid: int, request: Message, reply: Message) -> None:
        self.calls.append(("late", partid, request, reply))


class Node:
    """One partition: scheduler, Xpc, listener, MEM handler, its event stream."""

    def __init__(self, world: "World", partid: int, boot: int, config: Image) -> None:
        self.partid = partid
        self.scheduler = Scheduler()
        self.scheduler.now_ns = world.now_ns
        self.tracer = Tracer(partid, self.scheduler)
        self.listener = Peer()
        self.echo = Echo()
        self.records: list[Record] = []
        self.links_down: list[int] = []
        self.stopped = False
        self._world = world
        self.xpc = Xpc(
            partid=partid,
            boot=boot,
            image=config,
            arena=f"memory:p{partid}.{boot}",
            peers=Neighbourhood(dict.fromkeys(world.partids, config)).peers_of(partid),
            scheduler=self.scheduler,
            lockdep=LockDep(),
            tracer=self.tracer,
            transport=self,
            listener=self.listener,
        )
        self.xpc.register(0, self.echo)
        self.xpc.start()

    def send(self, partid: int, kind: str, number: int, frames: list[Buffer]) -> None:
        self._world.carry(self.partid, partid, kind, [bytes(frame) for frame in frames])

    def link_down(self, partid: int, reason: str) -> None:
        self.links_down.append(partid)

    def run(self) -> None:
        if not self.stopped:
            self.scheduler.run(self._world.now_ns)
            self.records += self.tracer.drain()

    def spawn(self, coroutine: Coroutine[Any, Any, object], name: str = "test") -> "Task":
        """Run `coroutine` as a thread; its result or exception is kept."""
        task = Task()
        task.thread = self.scheduler.spawn(name, task.keep(coroutine))
        return task

    def state(self, peer: int) -> ActState:
        return self.xpc.partitions[peer].state

    def names(self, *names: str) -> list[Record]:
        """The records of these tracepoints so far."""
        self.records += self.tracer.drain()
        return [record for record in self.records if record.name in names]


class Task:
    """The outcome of a thread."""

    def __init__(self) -> None:
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None
        self.thread: Any = None

    async def keep(self, coroutine: Coroutine[Any, Any, object]) -> None:
        try:
            self.result = await coroutine
        except Exception as error:
            self.error = error
        self.done = True


class World:
    """All nodes, the clock and the wire."""

    def __init__(
        self, count: int = 2, seed: int = 0, config: Image | None = None, **weather: Any
    ) -> None:
        self.now_ns = 0
        self.partids = list(range(count))
        self.weather = Weather(**weather)
        self.cut: set[tuple[int, int]] = set()
        self.drop: Callable[[int, int, str], bool] = lambda src, dst, kind: False
        self.sent: list[tuple[int, int, str]] = []
        self.config = config or image()
        self.nodes: dict[int, Node] = {}
        self._random = random.Random(seed)
        self._agenda: list[tuple[int, int, int, list[bytes]]] = []
        self._count = 0
        for partid in self.partids:
            self.boot(partid, 1)

    def __getitem__(self, partid: int) -> Node:
        return self.nodes[partid]

    def boot(self, partid: int, boot: int, config: Image | None = None) -> Node:
        """(Re)place a partition; whatever ran there before is gone."""
        node = Node(self, partid, boot, config or self.config)
        if partid in self.nodes:
            self.nodes[partid].stopped = True
            self.nodes[partid].scheduler.close()
        self.nodes[partid] = node
        node.run()
        return node

    def carry(self, src: int, dst: int, kind: str, frames: list[bytes]) -> None:
        self.sent.append((src, dst, kind))
        if (src, dst) in self.cut or self.drop(src, dst, kind):
            return
        weather = self.weather
        for _ in range(1 + (self._random.random() < weather.repeat)):
            if self._random.random() >= weather.loss:
                delay = weather.latency_ns + self._random.randrange(weather.jitter_ns + 1)
                self.inject(dst, frames, delay)

    def inject(self, dst: int, frames: list[bytes], delay_ns: int = 0) -> None:
        """Put frames in front of `dst`."""
        self._count += 1
        heapq.heappush(self._agenda, (self.now_ns + delay_ns, self._count, dst, frames))

    def run(self, duration_ns: int) -> None:
        """Let virtual time pass."""
        self.run_until(lambda: False, duration_ns)

    def run_until_done(self, *tasks: "Task", limit_ns: int = 60 * SECOND) -> bool:
        """Let virtual time pass until these are done; whether they were within the limit."""
        return self.run_until(lambda: all(task.done for task in tasks), limit_ns)

    def run_until(self, condition: Callable[[], bool], limit_ns: int = 60 * SECOND) -> bool:
        """Let virtual time pass until `condition`; whether it came true within the limit."""
        end_ns = self.now_ns + limit_ns
        for node in self.nodes.values():
            node.run()
        while not condition():
            next_ns = self._next_ns()
            if next_ns is None or next_ns > end_ns:
                self.now_ns = end_ns
                return condition()
            self.now_ns = max(self.now_ns, next_ns)
            while self._agenda and self._agenda[0][0] <= self.now_ns:
                _, _, dst, frames = heapq.heappop(self._agenda)
                if not self.nodes[dst].stopped:
                    self.nodes[dst].scheduler.now_ns = self.now_ns
                    self.nodes[dst].xpc.receive(list(frames))
                    self.nodes[dst].run()
            for node in self.nodes.values():
                node.run()
        return True

    def _next_ns(self) -> int | None:
        times = [self._agenda[0][0]] if self._agenda else []
        for node in self.nodes.values():
            if not node.stopped and (at := node.scheduler.next_deadline_ns()) is not None:
                times.append(at)
        return min(times, default=None)

    # -- what most tests ask ---------------------------------------------------------------

    def all_active(self) -> bool:
        """Whether everybody alive has an ACTIVE session with everybody else alive."""
        alive = [node.partid for node in self.nodes.values() if not node.stopped]
        return all(
            self[a].xpc.partitions[b].state is ActState.ACTIVE
            and self[a].xpc.incarnation(b) == self[b].xpc.partitions[a].mine
            for a in alive
            for b in alive
            if a != b
        )

    def connect(self) -> None:
        """Run until every MEM channel is connected."""
        assert self.run_until(lambda: self.all_active() and self.all_connected())

    def all_connected(self) -> bool:
        return all(
            (session := node.xpc.partitions[peer].session) is not None
            and session.channels[0].connected is not None
            for node in self.nodes.values()
            for peer in self.partids
            if not node.stopped and peer != node.partid and not self.nodes[peer].stopped
        )

    def ask(self, src: int, dst: int, name: str = "abc", patience: Patience = PATIENCE) -> Task:
        """A FIND_NAME call in a thread of its own."""
        node = self[src]
        call = node.xpc.call_killable(dst, 0, FindName(name), patience=patience)
        return node.spawn(call, f"ask-{name}")

    def owed(self, src: int, dst: int, request: Message, patience: Patience = PATIENCE) -> Task:
        """A call for what `dst` owes in the present session, in a thread of its own."""
        xpc = self[src].xpc
        session = xpc.incarnation(dst)
        assert session is not None
        return self[src].spawn(xpc.call(dst, 0, session, request, patience=patience), "owed")

    def shut_down(self) -> None:
        """Everybody leaves in order; then nothing may be left of anything."""
        tasks = [
            node.spawn(node.xpc.shutdown(Reason.UNLOADING), "rmmod")
            for node in self.nodes.values()
            if not node.stopped
        ]
        assert self.run_until(lambda: all(task.done for task in tasks))
        self.run(SECOND)
        for node in self.nodes.values():
            if not node.stopped:
                assert_nothing_left(node)


def assert_nothing_left(node: Node) -> None:
    """The leak check at the end of a test."""
    assert node.xpc.audit() == dict.fromkeys(
        ("slots", "waiting", "remembered", "admin", "threads"), 0
    )
    assert {thread.name for thread in node.scheduler.threads} == set()
    assert node.scheduler.next_deadline_ns() is None


def connected(count: int = 2, **xpc: object) -> World:
    world = World(count, config=image(**xpc))
    world.connect()
    return world


def answer(message: Message) -> Message:
    match message:
        case FindName(name=name):
            return FindNameReply(len(name))
        case Invalidate():
            return InvalidateAck()
    return Ack()


def hold(world: World, partid: int) -> Callable[[], None]:
    """Requests at `partid` wait until the returned function is called."""
    node, open_ = world[partid], [False]

    async def work(message: Message) -> Message:
        while not open_[0]:
            await node.scheduler.sleep_until(node.scheduler.now_ns + MILLISECOND)
        return answer(message)

    def let_go() -> None:
        open_[0] = True

    node.echo.work = work
    return let_go


def reason(task: Task) -> Reason:
    assert isinstance(task.error, XpcError)
    return task.error.reason


def ending(task: Task) -> Ending:
    assert isinstance(task.error, XpcError)
    return task.error.ending
