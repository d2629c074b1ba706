"""Plays a transcript: commands to kernels, and what they do, word for word.

A transcript is a text. Lines that start with `> ` are commands, `#` lines are comments, every
other line is output that the command before it must give. The kernels are driven through
`Kernel.step` alone; every message waits in the open until a command delivers it, so any order
of events can be staged. Output is the event stream, shortened to what the story needs.

    > deliver FAULT p1 p0        the oldest FAULT from p1 to p0 arrives
    > settle                     everything in the open arrives, until nothing is
    > quietly COMMAND            the command, its output left out
    > NAME = spawn p0            a task
    > importer load ADDRESS SIZE a call that may wait; its end is output when it comes
Values: numbers, names of earlier results, `name+N` for N pages after a result.
"""

import re
from collections.abc import Callable

from msgspec.structs import replace

from xpmem_emu.errors import errno_name
from xpmem_emu.image import Bytes, Image, MemorySection
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.boot import boot_kernel
from xpmem_emu.kernel.interface import (
    Done,
    Failed,
    KernelEvent,
    Outcome,
    Raised,
    Receive,
    Request,
    Send,
    Tick,
)
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.sim.memory import SimMemory
from xpmem_emu.trace import Record
from xpmem_emu.xpc.peers import Neighbourhood

PAGE = 4096
IMAGE = Image(memory=MemorySection(size=Bytes(1 << 20), swap=Bytes(1 << 16), files=Bytes(1 << 20)))
SHOWN = re.compile(
    r"xpmem:(fault|recall|invalidate|sequence|install|import|fence|unpin"
    r"|remove|access|copy)|mm:frames"
)
HIDDEN = ("segid", "address")
MEM = re.compile("GET|ATTACH|FAULT|INVALIDATE|DETACH|RELEASE|EVICT|AMO|COPY")


class Stage:
    """The kernels, the messages in the open, and the names of things."""

    def __init__(self, domains: str) -> None:
        """A letter for the coherence domain of each partition."""
        world = SimMemory()
        self.now_ns = 0
        self.output: list[str] = []
        self.open: list[tuple[int, Send]] = []
        self.names: dict[str, int] = {}
        self.homes: dict[str, int] = {}
        self.kernels: list[Kernel] = []
        self._calls: dict[int, tuple[str, str]] = {}
        images = [replace(IMAGE, domain=domain) for domain in domains]
        machine = Neighbourhood(dict(enumerate(images)))
        for partid, image in enumerate(images):
            memory = world.partition(partid, 1, IMAGE.memory.size)
            self.kernels.append(
                boot_kernel(
                    partid=partid,
                    boot=1,
                    image=image,
                    arena=memory.arena,
                    swap=memoryview(bytearray(IMAGE.memory.swap)),
                    peers=machine.peers_of(partid),
                    peer_memory=memory,
                )
            )
            self._step(partid, Tick())
        self.settle()
        self.output.clear()

    def play(self, command: str) -> list[str]:
        """Carry a command out; its output."""
        quietly = command.startswith("quietly ")
        name, _, rest = command.removeprefix("quietly ").rpartition(" = ")
        self.output = []
        words = rest.split()
        if words[0] == "deliver":
            self.deliver(words[1], int(words[2][1:]), int(words[3][1:]))
        elif words[0] == "settle":
            self.settle()
        elif words[0] == "spawn":
            self._spawn(name, int(words[1][1:]))
        else:
            self._call(name, words[0], words[1], [self._value(word) for word in words[2:]])
        return [] if quietly else self.output

    def deliver(self, kind: str, src: int, dst: int) -> None:
        """The oldest message of that kind on that way arrives."""
        for index, (sender, send) in enumerate(self.open):
            if (sender, send.partid, send.kind) == (src, dst, kind):
                del self.open[index]
                self._step(dst, Receive(list(send.frames)))
                return
        waiting = [f"{send.kind} p{src}->p{send.partid}" for src, send in self.open]
        raise AssertionError(f"no {kind} from p{src} to p{dst} is in the open, but {waiting}")

    def settle(self) -> None:
        """Everything arrives, until nothing is in the open."""
        while self.open:
            _, send = self.open.pop(0)
            self._step(send.partid, Receive(list(send.frames)))

    def _spawn(self, name: str, partid: int) -> None:
        self._call(name, name, "spawn", [], partid)
        self.homes[name] = partid
        self._call("", name, "open", [])

    def _call(
        self, name: str, who: str, what: str, values: list[int | str], partid: int | None = None
    ) -> None:
        home = self.homes[who] if partid is None else partid
        pid = self.names.get(who, 0)
        number = len(self._calls) + 1
        self._calls[number] = (name, f"{who} {what}")
        call, bulk = CALLS[what](pid, *values)
        self._step(home, Request(number, call, bulk))

    def _value(self, word: str) -> int | str:
        base, _, pages = word.partition("+")
        if base in self.names:
            return self.names[base] + int(pages or 0) * PAGE
        return int(word, 0) if word[0].isdigit() else word

    def _step(self, partid: int, event: KernelEvent) -> None:
        effects = self.kernels[partid].step(self.now_ns, event)
        assert effects.stopped is None, effects.stopped
        for record in effects.trace:
            self._show(record)
        self.open += [(partid, send) for send in effects.sends if isinstance(send, Send)]
        for reply in effects.replies:
            self._end(*self._calls[reply.call_id], reply.outcome)

    def _show(self, record: Record) -> None:
        flat = record.flat()
        if record.name == "xpc:send" and MEM.match(str(flat["kind"])):
            self.output.append(f"p{record.partid} sends {flat['kind']} to p{flat['peer']}")
        elif SHOWN.match(record.name):
            fields = [
                f"{name}={_short(value)}"
                for name in record.event.__struct_fields__
                if (value := getattr(record.event, name)) != "" and name not in HIDDEN
            ]
            self.output.append(f"p{record.partid} {record.name} {' '.join(fields)}")

    def _end(self, name: str, title: str, outcome: Outcome) -> None:
        match outcome:
            case Done(value=value, bulk=bulk):
                if name:
                    assert isinstance(value, int)
                    self.names[name] = value
                text = repr(bytes(bulk)) if bulk else "ok"
            case Failed():
                text = f"{errno_name(outcome.errno)}: {outcome.cause}"
            case Raised(info=info):
                text = f"{info.signal.name}: {info.reason}"
        self.output.append(f"{title}: {text}")


def _short(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value).replace(" ", "")


def _bytes(text: int | str) -> bytes:
    return str(text).encode()


CALLS: dict[str, Callable[..., tuple[calls.Call, bytes]]] = {
    "spawn": lambda pid: (calls.Spawn(), b""),
    "open": lambda pid: (calls.XpmemOpen(pid), b""),
    "mmap": lambda pid, pages: (calls.Mmap(pid, pages * PAGE), b""),
    "munmap": lambda pid, at, pages: (calls.Munmap(pid, at, pages * PAGE), b""),
    "dontneed": lambda pid, at, pages: (calls.Madvise(pid, at, pages * PAGE, 4), b""),
    "load": lambda pid, at, size: (calls.Load(pid, at, size), b""),
    "store": lambda pid, at, text: (calls.Store(pid, at), _bytes(text)),
    "make": lambda pid, at, pages: (calls.XpmemMake(pid, at, pages * PAGE), b""),
    "get": lambda pid, segid: (calls.XpmemGet(pid, segid), b""),
    "attach": lambda pid, apid, pages: (calls.XpmemAttach(pid, apid, 0, pages * PAGE), b""),
    "remove": lambda pid, segid: (calls.XpmemRemove(pid, segid), b""),
    "pause": lambda pid, point: (breaking.FailpointSet(point, "1*pause"), b""),
    "resume": lambda pid, point: (breaking.FailpointResume(point), b""),
    "detach": lambda pid, at: (calls.XpmemDetach(pid, at), b""),
}
