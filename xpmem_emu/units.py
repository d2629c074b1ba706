"""Page geometry and the units people type: sizes (4K, 2M) and times (20ms, 5s).

Internally sizes are bytes, times are integer nanoseconds, addresses are bytes and page numbers
are addresses shifted by PAGE_SHIFT. This module is the only place where text becomes units.
"""

import re
from fractions import Fraction

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_SIZE - 1
TASK_SIZE = 0x7FFF_FFFF_F000
"""End of the user address space: x86-64 with 4-level paging."""

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000

SIZE_LIMIT = 1 << 63
"""Sizes are below this, so that they and what is added to them fit into 64 bits."""
TIME_LIMIT_NS = 1 << 63

_SIZE = re.compile(r"(\d{1,20})(\.\d{1,20})?\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SIZE_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_TIME = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*(ns|us|ms|s|m|h)")
_TIME_NS = {
    "ns": 1,
    "us": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}


def page_align_up(size: int) -> int:
    """`size` in bytes, rounded up to whole pages."""
    return (size + PAGE_MASK) & ~PAGE_MASK


def parse_size(text: str) -> int:
    """Bytes of `4096`, `4K`, `1.5G`, `1GiB` (powers of two). Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write it like 4096, 64K, 2M or 1.5G")
    size = Fraction(match[1] + (match[2] or "")) * (1 << _SIZE_SHIFT[match[3].upper()])
    if size.denominator != 1:
        raise ValueError(f"{text} is not a whole number of bytes")
    if size >= SIZE_LIMIT:
        raise ValueError(f"{text} is too large; sizes are below 2^63 bytes")
    return int(size)


def parse_time(text: str) -> int:
    """Nanoseconds of `250us`, `20ms`, `1.5s`, `2m`. Raises ValueError."""
    match = _TIME.fullmatch(text.strip().removeprefix("-"))
    if text.strip().startswith("-") and match is not None:
        raise ValueError(f"{text} is below zero; a time is not")
    if match is None:
        raise ValueError(f"{text!r} is not a time; write it like 250us, 20ms, 5s or 2m")
    time_ns = round(float(match[1]) * _TIME_NS[match[2]])
    if time_ns >= TIME_LIMIT_NS:
        raise ValueError(f"{text} is too long; times are below 292 years")
    return time_ns


def format_size(size: int) -> str:
    """`size` bytes in the largest unit that keeps it whole: 8M, 12K, 4097."""
    for unit in "TGMK":
        shift = _SIZE_SHIFT[unit]
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def format_time(time_ns: int) -> str:
    """`time_ns` in the largest unit below it, three digits at most after the point."""
    for unit in ("s", "ms", "us"):
        if abs(time_ns) >= _TIME_NS[unit]:
            return f"{time_ns / _TIME_NS[unit]:.3f}".rstrip("0").rstrip(".") + unit
    return f"{time_ns}ns"


def format_span(time_ns: int) -> str:
    """`time_ns` for people: as `format_time`, and from 100 s on in the two largest units: 33m28s,
    2h5m, 3d4h."""
    if time_ns < 100 * SECOND:
        return format_time(time_ns)
    left = time_ns // SECOND
    counts: list[str] = []
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, seconds)
        if count or counts:
            counts.append(f"{count}{unit}")
    return "".join(each for each in counts[:2] if each[0] != "0")
