"""A machine of many partitions in one process: it boots, shares, recalls, and loses a tenth.

The real kernels on virtual time. Each partition exports a page and maps two: that of the next
partition of its coherence domain, and that of its counterpart in the next domain, which it reaches
by message. Whatever is read is compared with what was stored last.

`python -m xpmem_emu.lab.large_machine --size 4096` tells also what is no function of the seed, the
processor time and the memory of the process.
"""

import gc
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

import click
from msgspec.structs import replace

from xpmem_emu.cluster.topology import MachineSpec
from xpmem_emu.fields import PARTID_BITS_MIN, PARTID_MAX
from xpmem_emu.image import Bytes, Image, MemorySection, convert_image
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.interface import Done, Outcome, Raised
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.units import MILLISECOND, PAGE_SIZE, SECOND
from xpmem_emu.xpc.activation import ActState

NODES = 16
"""Nodes of a partition of 64 processors, four to a node: eight partitions are a domain."""
_WORD = 8
_MEMORY = MemorySection(
    size=Bytes(64 * PAGE_SIZE), swap=Bytes(16 * PAGE_SIZE), files=Bytes(1 << 20)
)


@dataclass(slots=True)
class Phase:
    """What one part of the run took."""

    name: str
    messages: int = 0
    virtual_ns: int = 0
    processor_s: float = 0.0
    resident_bytes: int = 0
    """Most that this process ever had when the phase ended."""


@dataclass(frozen=True, slots=True)
class Seat:
    """The task of one partition, and what it maps: (home, address of it here), near and far."""

    pid: int
    page: int
    maps: list[tuple[int, int]] = field(default_factory=list)


class LargeMachine:
    """`size` partitions. Raises AssertionError where one of them reads what it should not."""

    def __init__(self, size: int, image: Image, seed: int = 0, nodes: int = NODES) -> None:
        """`image`: what all boot, but with little memory and room for their partids."""
        bits = max(PARTID_BITS_MIN, (size - 1).bit_length())
        image = replace(image, memory=_MEMORY, xpc=replace(image.xpc, partid_bits=bits))
        self.phases: list[Phase] = []
        self._messages = 0
        self._random = Random(seed)
        self._domains = [one.domain for one in MachineSpec(size, nodes).written_out()]
        self._near, self._far = _neighbours(self._domains)
        images = {domain: replace(image, domain=domain) for domain in set(self._domains)}
        with self._phase("boot"):
            self.cluster = SimCluster(size, image, image_of=lambda p: images[self._domains[p]])
            self.cluster.keep_trace = False
            self.cluster.tap = lambda src, send: self._count()
            self.cluster.run_until_active()
            self.cluster.run_for(MILLISECOND)  # channels open
        self._seats: dict[int, Seat] = {}

    def run(self) -> None:
        """All of it, phase by phase."""
        with self._phase("idle second"):
            self.cluster.run_for(SECOND)
        with self._phase("share"):
            self._share()
        with self._phase("recall"):
            self._recall()
        self._lose(self._random.sample(list(self._seats), len(self._seats) // 10))

    @property
    def sessions(self) -> int:
        """How many of them there are, seen from one side each."""
        return sum(
            partition.state is ActState.ACTIVE
            for kernel in self.cluster.kernels.values()
            for partition in kernel.xpc.partitions.values()
        )

    def phase(self, name: str) -> Phase:
        """The phase of that name."""
        return next(phase for phase in self.phases if phase.name == name)

    # -- phases ------------------------------------------------------------------------------

    def _share(self) -> None:
        everybody = self.cluster.partids
        pids = self._values({p: calls.Spawn() for p in everybody})
        self._values({p: calls.XpmemOpen(pids[p]) for p in everybody})
        pages = self._values({p: calls.Mmap(pids[p], PAGE_SIZE) for p in everybody})
        self._seats = {p: Seat(pids[p], pages[p]) for p in everybody}
        self._store(0)
        segids = self._values({p: calls.XpmemMake(pids[p], pages[p], PAGE_SIZE) for p in everybody})
        for homes in (self._near, self._far):
            apids = self._values({p: calls.XpmemGet(pids[p], segids[homes[p]]) for p in everybody})
            at = self._values(
                {p: calls.XpmemAttach(pids[p], apids[p], 0, PAGE_SIZE) for p in everybody}
            )
            for p in everybody:
                self._seats[p].maps.append((homes[p], at[p]))
        self._require(0)

    def _recall(self) -> None:
        """Every exporter gives its page up, and all holders lose it; then they find the next."""
        drop = {
            p: calls.Madvise(seat.pid, seat.page, PAGE_SIZE, calls.MADV_DONTNEED)
            for p, seat in self._seats.items()
        }
        self._values(drop)
        self._require(None)
        self._store(1)
        self._require(1)

    def _lose(self, lost: Sequence[int]) -> None:
        with self._phase("loss noticed"):
            for partid in lost:
                self.cluster.crash(partid)
                del self._seats[partid]
            self._run_until_missed()
            self._require(1)
        with self._phase("after the loss"):
            for partid in lost:
                self.cluster.prove_gone(partid)
            self._store(2)
            self._require(2)
        for kernel in self.cluster.kernels.values():
            assert kernel.stopped is None, kernel.stopped
            assert not sum(kernel.xpmem.fence.quarantined().values()), kernel.partid

    # -- what they read ----------------------------------------------------------------------

    def _store(self, turn: int) -> None:
        stores = {p: calls.Store(seat.pid, seat.page) for p, seat in self._seats.items()}
        self._values(stores, lambda partid: _word(partid, turn))

    def _require(self, turn: int | None) -> None:
        """Each reads both pages: what was stored in that turn, zeros, or that its home is gone."""
        for which in (0, 1):
            loads = {
                p: calls.Load(seat.pid, seat.maps[which][1], _WORD)
                for p, seat in self._seats.items()
            }
            for partid, outcome in self._outcomes(loads).items():
                home = self._seats[partid].maps[which][0]
                if home not in self._seats:
                    assert isinstance(outcome, Raised), (partid, home, outcome)
                    continue
                assert isinstance(outcome, Done), (partid, home, outcome)
                expected = bytes(_WORD) if turn is None else _word(home, turn)
                assert outcome.bulk == expected, (partid, home, bytes(outcome.bulk))

    # -- all at once -------------------------------------------------------------------------

    def _run_until_missed(self) -> None:
        """Until nobody takes one that crashed for ACTIVE. It does not come back, so none is asked
        again."""
        believed = [
            partition
            for kernel in self.cluster.kernels.values()
            for peer, partition in kernel.xpc.partitions.items()
            if peer not in self.cluster.kernels
        ]

        def missed() -> bool:
            while believed and believed[-1].state is not ActState.ACTIVE:
                believed.pop()
            return not believed

        self.cluster.run_until(missed)

    def _outcomes(
        self, each: Mapping[int, Call], bulk: Callable[[int], bytes] = lambda partid: b""
    ) -> dict[int, Outcome]:
        """A call at each of these partitions, all begun now; returns when all have ended."""
        left = len(each)

        def ended(_: Ticket) -> None:
            nonlocal left
            left -= 1

        tickets = {p: self.cluster.submit(p, call, bulk(p), ended) for p, call in each.items()}
        self.cluster.run_until(lambda: not left)
        outcomes = {p: ticket.outcome for p, ticket in tickets.items()}
        return {p: outcome for p, outcome in outcomes.items() if outcome is not None}

    def _values(
        self, each: Mapping[int, Call], bulk: Callable[[int], bytes] = lambda partid: b""
    ) -> dict[int, int]:
        values = {}
        for partid, outcome in self._outcomes(each, bulk).items():
            assert isinstance(outcome, Done), (partid, outcome)
            values[partid] = outcome.value if isinstance(outcome.value, int) else 0
        return values

    # -- accounts ----------------------------------------------------------------------------

    def _count(self) -> None:
        self._messages += 1

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        cluster: SimCluster | None = getattr(self, "cluster", None)
        begun_ns, messages = cluster.now_ns if cluster else 0, self._messages
        begun_s = time.process_time()
        yield
        self.phases.append(
            Phase(
                name,
                self._messages - messages,
                self.cluster.now_ns - begun_ns,
                time.process_time() - begun_s,
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
            )
        )


def _neighbours(domains: Sequence[str]) -> tuple[list[int], list[int]]:
    """For each partition the next one of its domain, and its counterpart in the next domain."""
    members: dict[str, list[int]] = {}
    for partid, domain in enumerate(domains):
        members.setdefault(domain, []).append(partid)
    near = {
        here: there
        for circle in members.values()
        for here, there in zip(circle, [*circle[1:], circle[0]], strict=True)
    }
    width = len(members[domains[0]])
    return (
        [near[partid] for partid in range(len(domains))],
        [(partid + width) % len(domains) for partid in range(len(domains))],
    )


def _word(partid: int, turn: int) -> bytes:
    return b"p%04x.%02x" % (partid, turn)


def run_machine(size: int, image: Image, seed: int = 0) -> LargeMachine:
    """A machine that has been through all of it. AssertionError where somebody read what he should
    not."""
    # Each collection looks at all that lives, and here nearly all lives: with them the time for one
    # partition is twice as long at 1,024 as at 256, and the memory is the same.
    gc.disable()
    try:
        machine = LargeMachine(size, image, seed)
        machine.run()
    finally:
        gc.enable()
    return machine


@click.command
@click.option("--size", type=click.IntRange(16, PARTID_MAX + 1), default=64, show_default=True)
@click.option("--sessions", type=click.Choice(["all", "domain"]), default="domain")
@click.option("--seed", type=int, default=0, help="Who crashes.")
def main(size: int, sessions: str, seed: int) -> None:
    """Run one machine, and say what each phase took for one partition."""
    image = convert_image({"xpc": {"sessions": sessions}})
    machine = run_machine(size, image, seed)
    click.echo(f"{size} partitions, sessions {sessions}, {machine.sessions / size:.1f} each")
    for phase in machine.phases:
        click.echo(
            f"{phase.name:15}{phase.messages / size:9.1f} messages"
            f"{phase.virtual_ns / MILLISECOND:12.3f} ms of virtual time"
            f"{phase.processor_s * 1000 / size:9.2f} ms of a processor"
            f"{phase.resident_bytes >> 20:7} MiB in all"
        )


if __name__ == "__main__":
    main()
