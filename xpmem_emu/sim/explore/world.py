"""What is explored: a few tasks that do a few things at the same time, as data.

`setup` runs in default order and is not explored. Then every *program* makes its calls one after
the other, all programs at once; a program may wait for another's call to end. A world names what
may deviate in it besides the order of messages and calls.

An *act* begins a call, or does something to the world from outside. Numbers name tasks, regions,
segments, permits and attachments as in a plan.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from xpmem_emu.failpoints.points import Point
from xpmem_emu.image import (
    Bytes,
    DeadlineSection,
    FaultSection,
    Image,
    LimitsSection,
    MemorySection,
    Nanoseconds,
    XpcSection,
)
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.sim.operations.executor import Executor
from xpmem_emu.sim.plan import Op, Operation
from xpmem_emu.units import MILLISECOND, PAGE_SIZE

Moment = tuple[int | None, ...]
"""The sessions that everybody has with everybody."""


class RunningWorld(Protocol):
    """A small world while it runs, as far as its acts and checks see it."""

    @property
    def stage(self) -> Executor:
        """Carries out operations of plans."""

    @property
    def noted(self) -> dict[str, int]:
        """What the world's own acts saw."""

    def moment(self) -> Moment:
        """Who has which session with whom."""

    def went_well(self, text: str) -> bool:
        """Whether the call of that act has succeeded."""

    def peek(self, region: int, page: int, word: int) -> int | None:
        """A word of memory, past every kernel."""

    def stop(self, partid: int) -> None:
        """Stop a process in the middle of its stores."""

    def land(self, partid: int, boot: int) -> None:
        """Finish the stores of a stopped process."""

    def boot_over(self, partid: int) -> None:
        """Boot a second process over a stopped one."""

    def poison(self, region: int, page: int) -> None:
        """Let a frame go bad."""

    def give_up(self, partid: int, peer: int) -> None:
        """Let a partition give a healthy one up."""


def small_image(domain: str = "A", control_ms: int = 5000) -> Image:
    """Few frames, slots and tries; heartbeats and discovery each `control_ms`."""

    def ms(count: int) -> Nanoseconds:
        return Nanoseconds(count * MILLISECOND)

    return Image(
        name="small",
        domain=domain,
        memory=MemorySection(Bytes(24 * PAGE_SIZE), Bytes(8 * PAGE_SIZE), Bytes(64 * PAGE_SIZE)),
        limits=LimitsSection(inflight_faults=4),
        faults=FaultSection(0, 0, 1, 1),
        xpc=XpcSection(
            slots=2,
            payload=Bytes(1 << 14),
            discovery_interval=ms(control_ms),
            heartbeat_interval=ms(control_ms),
            heartbeat_check=ms(4 * control_ms),
            disengage_limit=ms(100),
            control_attempt=ms(20),
            control_tries=8,
        ),
        deadlines=DeadlineSection(
            fault_attempt=ms(25),
            fault_tries=2,
            fault_wait_max=ms(400),
            recall_attempt=ms(30),
            recall_tries=2,
            bte_timeout=ms(25),
            bte_retries=1,
        ),
    )


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that a program does."""

    text: str
    do: Callable[[RunningWorld], None]
    after: str = ""
    """The text of another program's act that must have ended before."""
    when: Callable[[RunningWorld], bool] = lambda ground: True
    """What must be the case besides. Time passes to let it be so."""


@dataclass(frozen=True, slots=True)
class Program:
    """What one thread of a task does, on partition `partid`."""

    name: str
    partid: int
    acts: tuple[Act, ...]


Complaint = tuple[Invariant, str]
"""(invariant, what is wrong)."""


@dataclass(frozen=True, slots=True)
class World:
    """A world and what may deviate in it."""

    name: str
    gist: str
    setup: tuple[Operation, ...]
    programs: tuple[Program, ...]
    finale: tuple[Act, ...] = ()
    """What is done, one after the other, when everything else is over; explored as well."""
    partitions: int = 2
    images: tuple[Image, ...] = (small_image(),)
    """Of each partition; the last one counts for the rest."""
    kills: tuple[int, ...] = ()
    """Tasks that may be killed in the middle of a call."""
    stops: tuple[int, ...] = ()
    """Partitions whose process may be stopped, and wakes in the middle of a store."""
    crashes: tuple[int, ...] = ()
    """Partitions whose process may vanish."""
    picks: tuple[int, ...] = ()
    """Partitions in which another runnable thread may go first."""
    stalls: tuple[Point, ...] = ()
    """Places in a kernel where a thread may stay for a while."""
    check: Callable[[RunningWorld], Iterable[Complaint]] = lambda ground: ()
    """What must hold at the end, beside every invariant."""

    def image_of(self, partid: int) -> Image:
        """What a partition boots."""
        return self.images[min(partid, len(self.images) - 1)]


def planned(op: Op, **parts: int | str) -> Operation:
    """An operation of a plan, at no particular time."""
    return Operation(0, op, **parts)  # type: ignore[arg-type]


def act(op: Op, after: str = "", label: str = "", **parts: int | str) -> Act:
    """An act that is an operation of a plan. `label` tells it from another one that is the same."""
    what = planned(op, **parts)
    words = [op.value, *(f"{name} {value}" for name, value in parts.items() if name != "made")]
    return Act(" ".join([*words, label]).strip(), lambda ground: ground.stage.perform(what), after)


def outside_act(text: str, do: Callable[[RunningWorld], None], after: str = "") -> Act:
    """An act that no task does."""
    return Act(text, do, after)


def in_session(what: Act) -> Act:
    """The act, once p0 and p1 have a session."""
    return replace(what, when=lambda ground: None not in ground.moment()[:2])


def exporting(pages: int, kind: str = "private", n: int = 1) -> tuple[Operation, ...]:
    """Task n of p0 shares its region n as segment n."""
    return (
        planned(Op.SPAWN, partid=0, made=n),
        planned(Op.MMAP, task=n, made=n, pages=pages, detail=kind),
        planned(Op.MAKE, task=n, region=n, pages=pages, made=n),
    )


def importing(
    task: int, partid: int, segment: int = 1, n: int = 1, pages: int = 1
) -> tuple[Operation, ...]:
    """A task of a partition gets segment as permit n and attaches it as attachment n."""
    return (
        planned(Op.SPAWN, partid=partid, made=task),
        planned(Op.GET, task=task, segment=segment, made=n),
        planned(Op.ATTACH, task=task, permit=n, pages=pages, made=n),
    )


def holding(task: int, n: int, pages: int) -> tuple[Operation, ...]:
    """The task stores into every page of attachment n, and so holds it for writing."""
    return tuple(planned(Op.STORE, task=task, attachment=n, page=page) for page in range(pages))
