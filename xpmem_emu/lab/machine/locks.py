"""Locks of the costed machine: state only, and who waits. `machine` hands them over.

Waiters get a lock in the order in which they asked, and own it from the moment it is handed to
them: nobody overtakes, and a semaphore's reader who comes after a writer waits behind it.
"""

from collections import deque


class LockTaker:
    """Who takes locks and waits: a strand, which knows its locks, so that they cannot know more."""

    __slots__ = ()


class CostedLock:
    """What spinning and sleeping locks have in common. `address` orders locks of one `family`;
    0: this lock has no order among them."""

    sleeps = False

    def __init__(self, name: str, address: int = 0, family: str = "") -> None:
        self.name, self.address, self.family = name, address, family
        self.owner: LockTaker | None = None
        self.readers: set[LockTaker] = set()
        self.waiters: deque[tuple[LockTaker, bool]] = deque()
        """Who waits, and whether it is content to share."""

    @property
    def free(self) -> bool:
        """Whether nobody has it."""
        return self.owner is None and not self.readers

    def admits(self, shared: bool) -> bool:
        """Whether who asks now has it at once."""
        if self.waiters:
            return False
        return self.free or (shared and self.owner is None)

    def enter(self, holder: LockTaker, shared: bool) -> None:
        """It is the holder's."""
        assert self.free or (shared and self.owner is None), f"two have {self.name} at once"
        if shared:
            self.readers.add(holder)
        else:
            self.owner = holder

    def leave(self, holder: LockTaker) -> None:
        """It is the holder's no more."""
        assert self.owner is holder or holder in self.readers, f"{self.name} given by a stranger"
        if self.owner is holder:
            self.owner = None
        else:
            self.readers.discard(holder)

    def next_ones(self) -> list[LockTaker]:
        """Whom it is handed to now: a writer, or all readers at the head. They are in."""
        entered: list[LockTaker] = []
        while self.waiters:
            holder, shared = self.waiters[0]
            if not (self.free or (shared and self.owner is None)):
                break
            self.waiters.popleft()
            self.enter(holder, shared)
            entered.append(holder)
        return entered


class SpinningLock(CostedLock):
    """A spinlock: who waits keeps its processor, and may not sleep while it has the lock."""


class SleepingLock(CostedLock):
    """A rw-semaphore: who waits sleeps, and its processor does something else."""

    sleeps = True


class Latch:
    """Something that happens once and is waited for, as a completion is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_open = False
        self.waiters: list[LockTaker] = []
