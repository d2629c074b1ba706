"""A cluster whose messages wait in the open until somebody delivers them, in any order.

While it is explored no time passes but by `tick`, which goes to the next deadline of a kernel;
before and after, it is the ordinary simulated cluster. Default order of what is ready is that of
Lamport clocks, as if every message took one unit of time. The order of two steps of different
partitions therefore changes nothing that comes after them, unless one heard of the other, and two
orders that differ in nothing else end in states with the same `fingerprint`.

A kernel is deterministic (D1), so its state is named by all that ever happened to it: a chain of
hashes over its events, its times and the choices made inside its steps. What kernels share beside
messages is memory, so the tracked words of every frame belong to the state as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from hashlib import blake2b

import msgspec
import numpy as np

from xpmem_emu.codec import Buffer
from xpmem_emu.image import Image
from xpmem_emu.inject.effects import read_frames
from xpmem_emu.judge.observer import Observer
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.interface import Effects, KernelEvent, Receive, Request, Send, Tick
from xpmem_emu.sim.cluster import LATENCY_NS, SimCluster
from xpmem_emu.sim.operations.registry import WORD_OFFSETS
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.units import PAGE_SIZE
from xpmem_emu.xpc.frame import ChannelNumber

_encode = msgspec.msgpack.Encoder().encode


class Hold(Enum):
    """Until when a message or a thread is held back."""

    IDLE = "idle"
    """Nothing else can happen without time passing."""
    LATE = "late"
    """A deadline has passed somewhere, and all that comes of it has happened."""
    LAST = "last"
    """Every call has ended and nothing happens any more."""


@dataclass(eq=False, slots=True)
class Letter:
    """A message in the open. `stamp`: the sender's Lamport clock; `order` counts its messages."""

    stamp: int
    src: int
    order: int
    dst: int
    kind: str
    number: int
    frames: list[Buffer]
    data: bool
    """Whether it belongs to the MEM channel: control messages never deviate."""
    copy: int = 0
    hold: Hold | None = None
    plain: bool = False
    """It was held back already, and now simply arrives."""

    @property
    def place(self) -> tuple[int, int, int, int, int]:
        """Where it stands in the default order; calls that begin at the same time go first."""
        return self.stamp, 1, self.src, self.order, self.copy

    def __str__(self) -> str:
        return f"{self.kind} p{self.src}->p{self.dst}"


class OpenCluster(SimCluster):
    """The cluster of one explored world."""

    def __init__(
        self,
        partitions: int,
        image_of: Callable[[int], Image],
        watch: Observer,
        pick: Callable[[int, int], int],
    ) -> None:
        """`pick` chooses among the runnable threads of a partition, given how many there are."""
        self.exploring = False
        self.letters: list[Letter] = []
        self.clock = [0] * partitions
        """Lamport clocks."""
        self.sent = [0] * partitions
        self._chains = [b""] * partitions
        self._waiting = [b""] * partitions
        """Chains of what a stopped partition has not heard yet."""
        self.begun: list[Ticket] = []
        """Calls that began while it was explored."""
        super().__init__(
            partitions,
            image_of(0),
            observer=watch,
            pick_of=lambda partid: partial(pick, partid),
            image_of=image_of,
        )

    # -- the two modes -----------------------------------------------------------------------

    def open(self) -> None:
        """From now on messages wait, and so does time."""
        self._agenda.clear()
        self.exploring = True

    def close(self) -> None:
        """From now on messages arrive and time passes."""
        self.exploring = False
        letters, self.letters = sorted(self.letters, key=lambda each: each.place), []
        for letter in letters:
            self._deliver(self.now_ns + LATENCY_NS, letter.dst, letter.frames)
        wakes, self._wakes = self._wakes, {}
        for partid, wake_at_ns in wakes.items():
            self._wake_later(partid, wake_at_ns)

    # -- what can happen ---------------------------------------------------------------------

    def hand_over(self, letter: Letter) -> None:
        """The message arrives."""
        self.letters.remove(letter)
        self.clock[letter.dst] = max(self.clock[letter.dst], letter.stamp)
        self._step(letter.dst, Receive(letter.frames))

    def next_tick(self) -> tuple[int, int] | None:
        """When and where the next deadline is."""
        due = [(at_ns, partid) for partid, at_ns in self._wakes.items() if not self.hung(partid)]
        return min(due, default=None)

    def tick(self) -> None:
        """Time passes until then."""
        due = self.next_tick()
        assert due is not None
        self.now_ns = max(self.now_ns, due[0])
        del self._wakes[due[1]]
        self._step(due[1], Tick())

    def note(self, partid: int, choice: str) -> None:
        """A choice was made inside a step of this partition."""
        self._chains[partid] = _link(self._chains[partid], choice.encode())

    # -- as SimCluster, but in the open --------------------------------------------------------

    def submit(
        self,
        partid: int,
        call: Call,
        bulk: Buffer = b"",
        then: Callable[[Ticket], None] | None = None,
    ) -> Ticket:
        """As SimCluster, and noted."""
        ticket = super().submit(partid, call, bulk, then)
        if self.exploring:
            self.begun.append(ticket)
        return ticket

    def take(self, partid: int, event: KernelEvent) -> None:
        """As SimCluster, noting what happened to the partition."""
        if self.exploring and partid in self.kernels:
            chains = self._waiting if self.hung(partid) else self._chains
            chains[partid] = _link(chains[partid], self.now_ns.to_bytes(8, "big"), *_parts(event))
            self.clock[partid] += not self.hung(partid)
        super().take(partid, event)

    def _carry(self, src: int, effects: Effects) -> None:
        if not self.exploring:
            super()._carry(src, effects)
            return
        for effect in effects.sends:
            if isinstance(effect, Send):
                self.sent[src] += 1
                frames: list[Buffer] = list(map(bytes, effect.frames))
                known = read_frames(frames)
                data = known is not None and known[0].channel == ChannelNumber.MEM
                self.letters.append(
                    Letter(
                        self.clock[src],
                        src,
                        self.sent[src],
                        effect.partid,
                        effect.kind,
                        effect.number,
                        frames,
                        data,
                    )
                )

    def _wake_later(self, partid: int, wake_at_ns: int | None) -> None:
        if not self.exploring:
            super()._wake_later(partid, wake_at_ns)
        elif wake_at_ns is None:
            self._wakes.pop(partid, None)
        else:
            self._wakes[partid] = wake_at_ns

    # -- equal states ------------------------------------------------------------------------

    def fingerprint(self, *more: object) -> int:
        """61 bits that name the state of the whole cluster, and of `more`."""
        letters = sorted(
            (each.place, each.hold is None, str(each.hold), each.plain, each.dst)
            for each in self.letters
        )
        hung = {partid: len(missed) for partid, missed in self._hung.items()}
        state = (self.now_ns, self.clock, self._boots, hung, letters, more, sorted(self.kernels))
        whole = _link(repr(state).encode(), *self._chains, *self._waiting, *self._words())
        return int.from_bytes(whole[:8], "big") >> 3

    def _words(self) -> list[bytes]:
        """The tracked words of all memory, that of boots that are over included."""
        return [
            np.frombuffer(self.arena(partid, boot), dtype=np.uint64)
            .reshape(-1, PAGE_SIZE // 8)[:, _COLUMNS]
            .tobytes()
            for partid, last in self._boots.items()
            for boot in range(1, last + 1)
        ]


_COLUMNS = [offset // 8 for offset in WORD_OFFSETS]


def _link(chain: bytes, *parts: bytes) -> bytes:
    """The next element of a chain."""
    link = blake2b(chain, digest_size=16)
    for part in parts:
        link.update(part)
    return link.digest()


def _parts(event: KernelEvent) -> list[bytes]:
    """What of an event decides what a kernel makes of it: not the number that a call happens to
    have."""
    match event:
        case Receive(frames=frames):
            return [bytes(frame) for frame in frames]
        case Request(call=call, bulk=bulk):
            return [type(call).__name__.encode(), _encode(call), bytes(bulk)]
    return [repr(event).encode()]
