"""A plan: everything that one simulated run will do, as data that can be printed, cut and kept.

A seed draws a plan (`draw`), an executor carries it out (`operations`), an injector does to it what
it says (`injection`), and shrinking deletes parts of it (`shrink`). An operation names what it
works on by number - task 3, region 5 - and is passed over when that does not exist at its time, so
that any part of a plan is a plan again.

A plan says nothing about what should come of it.
"""

from enum import StrEnum
from typing import Any

import msgspec

from xpmem_emu.image import (
    Bytes,
    DeadlineSection,
    ExtensionSection,
    FaultSection,
    Image,
    LimitsSection,
    MemorySection,
    MmSection,
    MmuSection,
    Nanoseconds,
    NotifierDesign,
    RmapLock,
    XpcSection,
)
from xpmem_emu.units import MILLISECOND, PAGE_SIZE

PLAN_VERSION = 3


class Op(StrEnum):
    """What a task, or its partition, does."""

    SPAWN = "spawn"
    FORK = "fork"
    EXEC = "exec"
    EXIT = "exit"
    KILL = "kill"
    OPEN = "open"
    CLOSE = "close"
    MMAP = "mmap"
    REMAP = "remap"
    MOVE = "move"
    MUNMAP = "munmap"
    PROTECT = "protect"
    DONTNEED = "dontneed"
    PUNCH = "punch"
    PAGEOUT = "pageout"
    MIGRATE = "migrate"
    RECLAIM = "reclaim"
    TRUNCATE = "truncate"
    WRITEBACK = "writeback"
    PWRITE = "pwrite"
    PREAD = "pread"
    MAKE = "make"
    REMOVE = "remove"
    GET = "get"
    RELEASE = "release"
    ATTACH = "attach"
    DETACH = "detach"
    LOAD = "load"
    STORE = "store"
    AMO = "amo"
    BTE = "bte"
    CALL = "call"
    DEVICE = "device"
    UNDEVICE = "undevice"


class RegionKind(StrEnum):
    """What is behind a region of an exporter."""

    PRIVATE = "private"
    SHARED = "shared"
    FILE = "file"
    UNCACHED = "uncached"
    MSPEC = "mspec"
    """Only its owner fills it."""
    COPY = "copy"
    """A private mapping of a file."""
    SCRATCH = "scratch"
    """Private memory whose words are not tracked: anything may write it."""


class Operation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call at one time. Which fields count depends on `op`:

    `task` acts; `made` is the number that the new task, region, segment, permit or attachment
    gets; `region`, `segment`, `permit` and `attachment` name what it works on, 0 is none;
    `page` and `pages` are relative to that; `word` is one of the tracked words of the page;
    `detail` is the kind of a region, an atomic operation, a protection, which call a CALL is, or
    the device that a DEVICE gives the task for a place and an UNDEVICE takes away.

    A CALL makes any call there is: `values` are its arguments as they are, the others are taken
    from what the operation names.
    """

    at_ns: int
    op: Op
    task: int = 0
    made: int = 0
    partid: int = 0
    region: int = 0
    segment: int = 0
    permit: int = 0
    attachment: int = 0
    page: int = 0
    pages: int = 0
    word: int = 0
    detail: str = ""
    offset: int = 0
    size: int = 0
    """An access of `size` bytes, from `offset` of the page on, instead of a word."""
    behind: int = 0
    """The attachment that begins where the one accessed ends: the rest of the access is there."""
    beside: int = 0
    slot: int = 0
    """What is made lies `slot` pages after the place of what has number `beside`."""
    device: str = ""
    """The access goes through this device of the task."""
    into: int = 0
    """The permit that a copy goes through; of a BTE the region or attachment that it fills."""
    uid: int = 0
    mode: int = 0o666
    flags: int = 2
    """Of a new task, segment and permit."""
    values: dict[str, int | str | bool | list[int]] = {}
    fatal: int = 0
    """The task is killed when this call goes to sleep for the time of that number; 0: it is not."""


class InjectionKind(StrEnum):
    """What may go wrong."""

    FAULT = "fault"
    CRASH = "crash"
    HANG = "hang"
    SUPERSEDE = "supersede"


class PlannedInjection(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault from `at_ns` until `until_ns`.

    A FAULT is what `text` says, in the grammar of `inject.grammar`. A CRASH kills partition
    `partid`, which boots again at `until_ns`; the harness proves it gone after `proof_ns`, 0:
    never. A HANG stops `partid` and wakes it at `until_ns`, in the middle of a store. A SUPERSEDE
    boots another process over a stopped one; the first wakes in the middle of a store at
    `until_ns` and ends, which the harness proves after `proof_ns`.
    """

    name: str
    at_ns: int
    until_ns: int
    trouble: InjectionKind = InjectionKind.FAULT
    text: str = ""
    partid: int = -1
    proof_ns: int = 0


class Forgery(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message that partition `src` makes up at `at_ns`; one that does is malicious, and what it
    does itself is not judged any more.

    `body` has the fields of message `kind`, with references as in `forging`. A request gets a
    number `number` after the newest of `src`, an answer that of a request which `dst` sent so
    many requests ago. `times`: it is sent so often, with ids and numbers counting up. `newer`: it
    claims to be of an incarnation so much higher.
    """

    at_ns: int
    src: int
    dst: int
    kind: str
    body: list[Any]
    number: int = 0
    times: int = 1
    newer: int = 0


class Knobs(msgspec.Struct, frozen=True):
    """What the image of all partitions is made of."""

    partitions: int = 3
    frames: int = 256
    swap_pages: int = 256
    slots: int = 8
    after: int = 4
    before: int = 2
    batch: int = 16
    collisions: int = 3
    inflight: int = 16
    scale: int = 1
    """All deadlines are this many times the shortest ones."""
    domains: str = ""
    """A letter for each partition: its coherence domain. Empty: all are of one."""
    readonly_attach: bool = False
    threads: int = 4096
    tasks: int = 1024
    permits: int = 4096
    attachments: int = 4096
    ranges: int = 8192
    gru_entries: int = 512
    gru_asids: int = 1 << 20
    """Limits of the image."""
    notifier: NotifierDesign = NotifierDesign.DEFERRED
    rmap_lock: RmapLock = RmapLock.SPINLOCK

    def image_of(self, partid: int) -> Image:
        """What one partition boots."""
        image = self.image()
        return msgspec.structs.replace(image, domain=self.domains[partid : partid + 1] or "A")

    def image(self) -> Image:
        """What all partitions boot, domains aside."""

        def ms(count: int) -> Nanoseconds:
            return Nanoseconds(count * self.scale * MILLISECOND)

        return Image(
            name="sim",
            memory=MemorySection(
                Bytes(self.frames * PAGE_SIZE), Bytes(self.swap_pages * PAGE_SIZE), Bytes(8 << 20)
            ),
            limits=LimitsSection(
                inflight_faults=self.inflight,
                threads=self.threads,
                tasks=self.tasks,
                permits_per_task=self.permits,
                attachments_per_task=self.attachments,
                recall_ranges_per_message=self.ranges,
            ),
            faults=FaultSection(self.after, self.before, self.batch, self.collisions),
            xpc=XpcSection(
                slots=self.slots,
                payload=Bytes(1 << 16),
                discovery_interval=ms(50),
                heartbeat_interval=ms(30),
                heartbeat_check=ms(100),
                heartbeat_peers=64,
                disengage_limit=ms(150),
                control_attempt=ms(25),
                control_tries=8,
            ),
            deadlines=DeadlineSection(
                fault_attempt=ms(25),
                fault_tries=3,
                fault_wait_max=ms(400),
                recall_attempt=ms(30),
                recall_tries=2,
                bte_timeout=ms(30),
            ),
            mm=MmSection(self.notifier, self.rmap_lock),
            mmu=MmuSection(
                gru_entries=self.gru_entries,
                gru_contexts=min(16, self.gru_asids),
                gru_asids=self.gru_asids,
                walk=Nanoseconds(ms(1) // 4),
            ),
            extensions=ExtensionSection(readonly_attach=self.readonly_attach),
        )


class LinkLatency(msgspec.Struct, frozen=True):
    """How long messages take from one partition to another, without any fault."""

    src: int
    dst: int
    latency_ns: int
    jitter_ns: int = 0
    """Up to so much longer, each message for itself: later ones overtake."""


class Plan(msgspec.Struct, frozen=True):
    """A whole run."""

    scenario: str
    seed: int
    knobs: Knobs
    links: list[LinkLatency]
    workloads: list[str]
    operations: list[Operation]
    faults: list[PlannedInjection]
    load_ns: int
    """How long the safety phase lasts."""
    fifo: list[int] = []
    """Partitions whose kernels run threads in order; the others draw."""
    forgeries: list[Forgery] = []
    version: int = PLAN_VERSION

    @property
    def malicious(self) -> frozenset[int]:
        """Partitions that make messages up."""
        return frozenset(forgery.src for forgery in self.forgeries)

    def describe(self) -> str:
        """One line: what was drawn."""
        knobs = " ".join(
            f"{name}={value}" for name, value in msgspec.structs.asdict(self.knobs).items()
        )
        troubles = ", ".join(fault.text or fault.name for fault in self.faults) or "none"
        forged = "".join(f"; p{partid} is malicious" for partid in sorted(self.malicious))
        return (
            f"plan v{self.version} {self.scenario} seed {self.seed}: {knobs}; "
            f"workloads {', '.join(self.workloads)}; {len(self.operations)} operations; "
            f"faults {troubles}{forged}"
        )


def decode_plan(data: bytes) -> Plan:
    """The plan in a JSON text. Raises msgspec.ValidationError."""
    plan = msgspec.json.decode(data, type=Plan)
    if plan.version != PLAN_VERSION:
        raise msgspec.ValidationError(f"it has version {plan.version}, not {PLAN_VERSION}")
    return plan


def encode_plan(plan: Plan) -> bytes:
    """The plan as JSON."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1)
