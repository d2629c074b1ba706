"""What a partition boots: its memory, its limits, its deadlines. One reader, one writer, one type.

An image is a TOML text; every key has a default (the `laptop` preset), an unknown or impossible
key is refused with its full name. Every bound of the kernel is here: nothing grows without one.
Times are written `100ms`, sizes `256M`, and become nanoseconds and bytes.
"""

import errno
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from xpmem_emu import toml
from xpmem_emu.errors import KernelError
from xpmem_emu.fields import (
    PAGES_MAX,
    PARTID_BITS_MAX,
    PARTID_BITS_MIN,
    PAYLOAD_MAX,
    RANGES_MAX,
    WINDOW_MAX,
    misfit_named,
)
from xpmem_emu.text import LINE
from xpmem_emu.units import PAGE_SIZE, parse_size, parse_time

Positive = Annotated[int, Meta(ge=1)]
_T = TypeVar("_T")


class Nanoseconds(int):
    """A duration; written in images as text with a unit."""


class Bytes(int):
    """A size; written in images as text with a unit."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class MemorySection(_Section, frozen=True):
    """Physical memory and swap of one partition."""

    size: Bytes = Bytes(256 << 20)
    swap: Bytes = Bytes(64 << 20)
    files: Bytes = Bytes(1 << 30)
    """Bytes that files may take on the simulated disk."""

    @property
    def frames(self) -> int:
        """Frames of physical memory."""
        return self.size // PAGE_SIZE


class LimitsSection(_Section, frozen=True):
    """The bounds of everything that could grow. A full table is an errno, never growth."""

    tasks: Positive = 1024
    files: Positive = 256
    vmas_per_task: Positive = 65536
    segments_per_task: Positive = 4096
    permits_per_task: Positive = 4096
    attachments_per_task: Positive = 4096
    threads: Positive = 4096
    inflight_faults: Positive = 256
    recall_ranges_per_message: Annotated[int, Meta(ge=1, le=RANGES_MAX)] = RANGES_MAX


class FaultSection(_Section, frozen=True):
    """Fault-around (sources 1.10) and the collision limit of 2008."""

    after: Annotated[int, Meta(ge=0, le=95)] = 32
    before: Annotated[int, Meta(ge=0, le=95)] = 16
    batch: Annotated[int, Meta(ge=1, le=WINDOW_MAX)] = 1024
    """Most pages that one FAULT asks for when the touch is sequential."""
    collisions: Annotated[int, Meta(ge=0)] = 3
    """Retries after an invalidation crossed the answer; one more is EAGAIN."""


class XpcSection(_Section, frozen=True):
    """Channels and the partition level."""

    slots: Annotated[int, Meta(ge=2, le=4096)] = 128
    """Requests in flight per peer, channel and class."""
    payload: Bytes = Bytes(4 << 20)
    discovery_interval: Nanoseconds = Nanoseconds(250_000_000)
    heartbeat_interval: Nanoseconds = Nanoseconds(100_000_000)
    heartbeat_check: Nanoseconds = Nanoseconds(400_000_000)
    heartbeat_peers: Positive = 3
    """Up to so many peers these two hold; with more, both grow in proportion (`heartbeats`)."""
    disengage_limit: Nanoseconds = Nanoseconds(2_000_000_000)
    sessions: Literal["all", "domain"] = "all"
    """With whom there is a session from boot on; with others it begins on use (`xpc.peers`)."""
    partid_bits: Annotated[int, Meta(ge=PARTID_BITS_MIN, le=PARTID_BITS_MAX)] = PARTID_BITS_MIN
    """Width of a partid in ids and in frame numbers."""
    control_attempt: Nanoseconds = Nanoseconds(250_000_000)
    control_tries: Positive = 8

    @property
    def partid_end(self) -> int:
        """Partids are below this."""
        return 1 << self.partid_bits

    def heartbeats(self, peers: int) -> tuple[int, int]:
        """Nanoseconds between two heartbeats to the same peer, and between two checks.

        Everybody beats for everybody, so at a fixed interval the messages of a cluster grow with
        its square: sixteen partitions that do nothing would keep half a processor busy, and a
        check as short as for two would find healthy ones late. Bounded are the heartbeats that
        one partition sends in a second.
        """
        most = max(peers, self.heartbeat_peers)
        return (
            self.heartbeat_interval * most // self.heartbeat_peers,
            self.heartbeat_check * most // self.heartbeat_peers,
        )


class DeadlineSection(_Section, frozen=True):
    """How long a remote answer may take: attempts times tries, then the peer is given up."""

    fault_attempt: Nanoseconds = Nanoseconds(500_000_000)
    fault_tries: Positive = 3
    fault_wait_max: Nanoseconds = Nanoseconds(10_000_000_000)
    """Longest that a request may stay pending at a peer that keeps saying so."""
    recall_attempt: Nanoseconds = Nanoseconds(1_000_000_000)
    recall_tries: Positive = 2
    bte_timeout: Nanoseconds = Nanoseconds(250_000_000)
    bte_retries: Annotated[int, Meta(ge=0)] = 1


class NotifierDesign(StrEnum):
    """When clients of an address space are told of an invalidation (`mm.designs`)."""

    PAGE = "page"
    PAGES = "pages"
    DEFERRED = "deferred"
    GATHER = "gather"
    RANGE = "range"
    INTERVAL = "interval"


class RmapLock(StrEnum):
    """What an anon_vma and an i_mmap are locked with (sources T10)."""

    SPINLOCK = "spinlock"
    RWSEM = "rwsem"


class MmSection(_Section, frozen=True):
    """Choices of memory management that were argued about."""

    notifier: NotifierDesign = NotifierDesign.DEFERRED
    rmap_lock: RmapLock = RmapLock.SPINLOCK


class MmuSection(_Section, frozen=True):
    """Secondary MMUs: what one partition's devices have."""

    gru_entries: Annotated[int, Meta(ge=1, le=1 << 16)] = 512
    """Translations that its TLB holds."""
    gru_contexts: Annotated[int, Meta(ge=1, le=1 << 16)] = 16
    gru_asids: Annotated[int, Meta(ge=1, le=0x1FFFFE)] = 0x1FFFFE
    """Numbers for contexts: every eighth of 24 bits but the first and the last (sources 4.1)."""
    guest_slots: Positive = 32
    shadow_entries: Annotated[int, Meta(ge=1, le=1 << 20)] = 1 << 16
    """Translations that one guest or mirror holds."""
    walk: Nanoseconds = Nanoseconds(2_000)
    """How long a guest or mirror takes from a walk to an entry."""


class MachineSection(_Section, frozen=True):
    """The costed machine of the laboratory: its processors and what things take there. Assumed, not
    measured; the kernels that partitions boot know nothing of it."""

    processors: Annotated[int, Meta(ge=1, le=64)] = 4
    lock: Nanoseconds = Nanoseconds(25)
    """Of a lock that nobody has."""
    handover: Nanoseconds = Nanoseconds(250)
    """From one processor to another that spins."""
    switch: Nanoseconds = Nanoseconds(3_000)
    interrupt: Nanoseconds = Nanoseconds(2_000)
    flush: Nanoseconds = Nanoseconds(1_000)
    """Of a TLB or a GRU, however much of it."""
    message: Nanoseconds = Nanoseconds(2_000)
    copy: Nanoseconds = Nanoseconds(1_000)
    """Of one page."""
    walk: Nanoseconds = Nanoseconds(100)
    """One step: an entry of a page table, or of a list of areas."""


class ExtensionSection(_Section, frozen=True):
    """Behaviour that no historical XPMEM has; all off by default."""

    readonly_attach: bool = False
    segment_names: bool = False


class Image(_Section, frozen=True):
    """Everything that a kernel is booted with besides its partid and incarnation."""

    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=LINE)] = "laptop"
    domain: Annotated[str, Meta(min_length=1, max_length=64, pattern=LINE)] = "A"
    """Coherence domain (sources T22)."""
    memory: MemorySection = MemorySection()
    limits: LimitsSection = LimitsSection()
    faults: FaultSection = FaultSection()
    xpc: XpcSection = XpcSection()
    deadlines: DeadlineSection = DeadlineSection()
    mm: MmSection = MmSection()
    mmu: MmuSection = MmuSection()
    machine: MachineSection = MachineSection()
    extensions: ExtensionSection = ExtensionSection()


class ImageError(KernelError):
    """The image text is not acceptable; the cause names the key."""

    def __init__(self, cause: str) -> None:
        super().__init__(errno.EINVAL, cause, "see docs/images.md for every key and its meaning")


def read_image(text: str) -> Image:
    """The image that `text` (TOML) describes. Raises ImageError, which names the key."""
    try:
        return convert_image(toml.parse(text))
    except toml.TomlError as error:
        raise ImageError(str(error)) from None


def convert_image(tree: dict[str, Any]) -> Image:
    """The image of an already parsed TOML tree. Raises ImageError."""
    try:
        image = msgspec.convert(tree, Image, dec_hook=_unit)
    except msgspec.ValidationError as error:
        raise ImageError(_with_choices(misfit_named(str(error)))) from None
    _check(image)
    return image


def require_partid(image: Image, partid: int) -> None:
    """Raises KernelError EINVAL when the image has no room for that partid."""
    xpc = image.xpc
    if partid >= xpc.partid_end:
        raise KernelError(
            errno.EINVAL,
            f"partid {partid} does not fit into the {xpc.partid_bits} bits that image "
            f"{image.name} gives to one",
            f"partid_bits = {partid.bit_length()} under [xpc] of the image of every partition",
        )


def _with_choices(misfit: str) -> str:
    """Also what could be chosen instead, where something is."""
    for each in msgspec.structs.fields(MmSection):
        if misfit.startswith(f"mm.{each.name}: Invalid enum value"):
            return f"{misfit}, not one of {', '.join(each.type)}"
    return misfit


def image_text(image: Image) -> str:
    """The image as TOML: what `read_image` reads."""
    lines = _toml_lines(image)
    for each in msgspec.structs.fields(image):
        if isinstance(section := getattr(image, each.name), _Section):
            lines += ["", f"[{each.name}]", *_toml_lines(section)]
    return "\n".join(lines) + "\n"


def _toml_lines(section: _Section) -> list[str]:
    values = [(each, getattr(section, each.name)) for each in msgspec.structs.fields(section)]
    return [
        f"{each.name} = {_toml(each.type, value)}"
        for each, value in values
        if not isinstance(value, _Section)
    ]


def _toml(kind: object, value: object) -> str:
    if kind is Nanoseconds:
        return f'"{value}ns"'
    if kind is Bytes or isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unit(kind: type, value: object) -> object:
    if not isinstance(value, str):
        raise ValueError('expected text with a unit, such as "20ms" or "64M"')
    if kind is Nanoseconds:
        return Nanoseconds(parse_time(value))
    return Bytes(parse_size(value))


def _check(image: Image) -> None:
    memory, faults = image.memory, image.faults
    if memory.size % PAGE_SIZE or memory.size < 16 * PAGE_SIZE:
        raise ImageError(f"memory.size: {memory.size} is not at least 16 whole pages")
    if memory.frames > PAGES_MAX:
        raise ImageError(f"memory.size: {memory.size} is more than {PAGES_MAX} frames")
    if memory.swap % PAGE_SIZE:
        raise ImageError(f"memory.swap: {memory.swap} is not whole pages")
    if faults.after + faults.before >= 96:
        raise ImageError("faults.after: after + before must stay below 96 (sources 1.10)")
    if not PAGE_SIZE <= image.xpc.payload <= PAYLOAD_MAX:
        raise ImageError(f"xpc.payload: must be {PAGE_SIZE} to {PAYLOAD_MAX} bytes")
    if image.mmu.gru_asids < image.mmu.gru_contexts:
        raise ImageError("mmu.gru_asids: fewer than mmu.gru_contexts, each of which has one")
    if image.xpc.heartbeat_check <= image.xpc.heartbeat_interval:
        raise ImageError("xpc.heartbeat_check: must be longer than xpc.heartbeat_interval")
