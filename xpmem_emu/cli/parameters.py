"""What people type for sizes, times, ids, partitions and memory, as values.

Each function is a click parameter type: text in, value out, and a text that cannot be read is a
usage error that shows how to write it.

Names carry the boot that they are of: `p1:178364521345:12` is task 12 of that boot of partition p1,
`p1:178364521345:12:0x7f0000` a handle of its memory, to which `+4K` adds an offset. Pids and
addresses come again after a reboot, and whoever kept a name must not meet a stranger by it. So a
name without its boot is refused: nobody could tell whether it was kept.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import TypeVar

import click

from xpmem_emu import units
from xpmem_emu.errors import Signal
from xpmem_emu.fields import IDENT_END, PAGES_MAX, UID_END
from xpmem_emu.kernel import calls

_T = TypeVar("_T")

_PARTITION = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}|\d{1,4}")
_RANGE = re.compile(r"p?(\d{1,4})-p?(\d{1,4})")
_TASK = re.compile(rf"({_PARTITION.pattern}):(\d{{1,13}}):(\d{{1,7}})")
_HANDLE = re.compile(rf"({_TASK.pattern}):(0[xX][0-9a-fA-F]{{1,16}})(?:\+([\w.]+))?")
_SEGMENT = re.compile(r"(0[xX][0-9a-fA-F]{1,14})(?:\+([\w.]+))?")
_BOOTLESS = re.compile(rf"({_PARTITION.pattern})(:\d+(:0[xX]\w+)?|/0[xX]\w+)(\+[\w.]+)?")
_ADDRESS_END = 1 << 64
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
PROTECTIONS = {
    "none": calls.PROT_NONE,
    "r": calls.PROT_READ,
    "rw": calls.PROT_READ | calls.PROT_WRITE,
}


def parameter(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Turns the ValueError of a reader into click's usage error, text and all."""

    @wraps(read)
    def convert(text: str) -> _T:
        try:
            return read(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A task of one boot of a partition."""

    partition: str
    boot: int
    pid: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.boot}:{self.pid}"


@dataclass(frozen=True, slots=True)
class Handle:
    """Memory of a task. `offset` is the part after `+`, in bytes."""

    task: TaskRef
    address: int
    offset: int = 0

    @property
    def place(self) -> int:
        """The address meant, offset included. Raises UsageError beyond the end of addresses."""
        if self.address + self.offset >= _ADDRESS_END:
            raise click.UsageError(f"{self} is beyond the end of addresses, 2^64")
        return self.address + self.offset

    def further(self, offset: int) -> "Handle":
        """The memory so many bytes after this."""
        return replace(self, offset=self.offset + offset)

    def __str__(self) -> str:
        plus = f"+{self.offset:#x}" if self.offset else ""
        return f"{self.task}:{self.address:#x}{plus}"


def _integer(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f"{text!r} is not a number; write it like 4096 or 0x1000") from None


@parameter
def size(text: str) -> int:
    """Bytes: 4096, 64K, 1.5G, 0x1000."""
    if not text.lower().startswith("0x"):
        return units.parse_size(text)
    if _integer(text) >= units.SIZE_LIMIT:
        raise ValueError(f"{text} is too large; sizes are below 2^63 bytes")
    return _integer(text)


@parameter
def duration(text: str) -> int:
    """Nanoseconds: 20ms, 5s. Not zero."""
    time_ns = units.parse_time(text)
    if time_ns == 0:
        raise ValueError("the time must be longer than 0")
    return time_ns


@parameter
def parse_number(text: str) -> int:
    """A natural number below 2^64, decimal or hex."""
    value = _integer(text)
    if not 0 <= value < _ADDRESS_END:
        raise ValueError(f"{text} is not between 0 and 2^64-1")
    return value


@parameter
def uid(text: str) -> int:
    """A user or group of a task: 32 bits, of which the last value says "nobody's"."""
    value = _integer(text)
    if not 0 <= value < UID_END:
        raise ValueError(f"{text} is not between 0 and 2^32-2")
    return value


@parameter
def pages(text: str) -> int:
    """A number of pages or frames."""
    value = _integer(text)
    if not 0 <= value <= PAGES_MAX:
        raise ValueError(f"{text} is not between 0 and 2^36-1")
    return value


@parameter
def ident(text: str) -> int:
    """A segid or apid: positive, below 2^60, decimal or hex."""
    value = _integer(text)
    if not 0 < value < IDENT_END:
        raise ValueError(f"{text} is not an id; segids and apids are positive and below 2^60")
    return value


@parameter
def segment(text: str) -> int | str:
    """A segid, or else the name of a segment."""
    if text[:1].isdigit() or text.startswith("-"):
        return ident(text)
    if _NAME.fullmatch(text) is None:
        raise ValueError(f"{text!r} is neither a segid like 0x10000000000001 nor a segment name")
    return text


@parameter
def parse_partition(text: str) -> str:
    """One partition by its name; 3 is short for p3."""
    if _PARTITION.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a partition; write it like p0")
    return f"p{int(text)}" if text.isdigit() else text


@parameter
def partid(text: str) -> int:
    """The number of a partition: p3 or 3."""
    digits = text.removeprefix("p")
    if not digits.isdecimal() or int(digits) > 255:
        raise ValueError(f"{text!r} is not the number of a partition; write it like p3, up to p255")
    return int(digits)


@parameter
def parse_partitions(text: str) -> tuple[str, ...]:
    """Several partitions, in the order written and without repeats: p0-3,p5."""
    found: dict[str, None] = {}
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            found[parse_partition(part.strip())] = None
            continue
        first, last = int(match[1]), int(match[2])
        if last < first:
            raise ValueError(f"{part!r} runs backwards")
        found |= {f"p{each}": None for each in range(first, last + 1)}
    return tuple(found)


@parameter
def parse_task(text: str) -> TaskRef:
    """A task: p0:178364521345:12."""
    match = _TASK.fullmatch(text)
    if match is None:
        raise ValueError(_misread(text, "task", "P:BOOT:PID, as `xpmem-emu task ls` prints it"))
    return TaskRef(parse_partition(match[1]), int(match[2]), int(match[3]))


@parameter
def handle(text: str) -> Handle:
    """Memory: p1:178364521345:12:0x7f0000, perhaps with +OFFSET."""
    match = _HANDLE.fullmatch(text)
    if match is None:
        raise ValueError(_misread(text, "handle", "P:BOOT:PID:0xADDR, as `attach` prints it"))
    offset = size(match[6]) if match[6] else 0
    return Handle(parse_task(match[1]), int(match[5], 0), offset)


def _misread(text: str, kind: str, form: str) -> str:
    if _BOOTLESS.fullmatch(text):
        return f"{text!r} does not say of which boot it is; write it like {form}"
    return f"{text!r} is not a {kind}; write it like {form}"


@dataclass(frozen=True, slots=True)
class SegmentMemory:
    """The memory of a segment, at its exporter's. `offset` in bytes."""

    segid: int
    offset: int = 0

    def further(self, offset: int) -> "SegmentMemory":
        """The memory so many bytes after this."""
        return replace(self, offset=self.offset + offset)

    def __str__(self) -> str:
        plus = f"+{self.offset:#x}" if self.offset else ""
        return f"{self.segid:#x}{plus}"


MemoryRef = Handle | SegmentMemory


@parameter
def memory(text: str) -> MemoryRef:
    """Memory by its handle, or by the segid that it is exported as: 0xab0000100001+4K."""
    match = _SEGMENT.fullmatch(text)
    if match is None:
        return handle(text)
    return SegmentMemory(ident(match[1]), size(match[2]) if match[2] else 0)


def looks_like_memory(text: str) -> bool:
    """Whether `text` is meant to name memory of the cluster rather than a file here."""
    return looks_like_handle(text) or _SEGMENT.fullmatch(text) is not None


def looks_like_handle(text: str) -> bool:
    """Whether `text` is meant to name memory of the cluster rather than a file here."""
    return bool(_HANDLE.fullmatch(text) or (_BOOTLESS.fullmatch(text) and "0x" in text.lower()))


@parameter
def mode(text: str) -> int:
    """A permission mode in octal: 0600."""
    try:
        bits = int(text, 8)
    except ValueError:
        bits = -1
    if not 0 <= bits <= 0o777:
        raise ValueError(f"{text!r} is not a mode; write it in octal, 0000 to 0777")
    return bits


@parameter
def prot(text: str) -> int:
    """Page protection: none, r, rw."""
    if text not in PROTECTIONS:
        raise ValueError(f"{text!r} is not a protection; it is one of {', '.join(PROTECTIONS)}")
    return PROTECTIONS[text]


@parameter
def signal(text: str) -> int:
    """A signal: KILL, SIGTERM, 9."""
    name = text.upper().removeprefix("SIG")
    known = {each.name.removeprefix("SIG"): each.value for each in Signal}
    known |= {str(value): value for value in known.values()}
    if name not in known:
        raise ValueError(f"{text!r} is not a signal that tasks get; try KILL, TERM, BUS or SEGV")
    return known[name]
