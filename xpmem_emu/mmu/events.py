"""Trace events of secondary MMUs. `device` is a kind, `pid` the task whose memory it translates;
addresses are the task's, in bytes."""

from xpmem_emu.trace import Event


class MmuAttach(Event, frozen=True, tag="mmu:attach"):
    """A device translates the memory of a task from now on."""

    device: str
    pid: int


class MmuDetach(Event, frozen=True, tag="mmu:detach"):
    """It does not any more, and holds nothing of it."""

    device: str
    pid: int


class MmuInstall(Event, frozen=True, tag="mmu:install"):
    """Translations for the pages from `address` on were installed."""

    device: str
    pid: int
    address: int
    pages: int


class MmuInvalidate(Event, frozen=True, tag="mmu:invalidate"):
    """What was known of [start, end) is dropped. Where `settles`, no translation of it may be
    installed until an mmu:settle covers it."""

    device: str
    pid: int
    start: int
    end: int
    dropped: int
    settles: bool


class MmuSettle(Event, frozen=True, tag="mmu:settle"):
    """Nobody reaches the old pages of [start, end) any more."""

    device: str
    pid: int
    start: int
    end: int


class MmuWait(Event, frozen=True, tag="mmu:wait"):
    """A miss waits, because a range is being invalidated."""

    device: str
    pid: int
    address: int


class MmuRetry(Event, frozen=True, tag="mmu:retry"):
    """A walk is repeated: an invalidation crossed it."""

    device: str
    pid: int
    address: int


class AsidsExhausted(Event, frozen=True, tag="mmu:asids"):
    """The GRU has no fresh ASID left: it is flushed whole, and they are given out again."""

    generation: int
