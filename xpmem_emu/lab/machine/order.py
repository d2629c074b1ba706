"""A checker of lock order: who takes two locks the other way round is told, with the other one.

Locks of one family that have addresses are taken lowest first (sources T9). Of other locks any
order is right as long as everybody keeps to it. Not looked at are locks that are taken under one
that serialises all who take several, and what is held below the last `DEPTH`: a kernel's own
checker gives up there, too.
"""

from collections.abc import Iterable

from xpmem_emu.lab.machine.locks import CostedLock

DEPTH = 48


class LockOrder:
    """Remembers in which order locks were first taken, by whom and where."""

    def __init__(self) -> None:
        self._seen: dict[tuple[CostedLock, CostedLock], str] = {}

    def taking(
        self, who: str, place: str, held: Iterable[CostedLock], lock: CostedLock
    ) -> str | None:
        """Somebody takes a lock while it has others, the last one first. What is wrong with that,
        or None."""
        wrong = None
        for depth, other in enumerate(held):
            if depth == DEPTH:
                break
            wrong = wrong or self._wrong(other, lock)
            self._seen.setdefault((other, lock), f"{who} in {place}")
        return wrong

    def _wrong(self, held: CostedLock, lock: CostedLock) -> str | None:
        before = self._seen.get((lock, held))
        other = f"the other order seen: {before}" if before else "nobody took the other order yet"
        if held.family and held.family == lock.family and 0 < lock.address < held.address:
            return (
                f"possible deadlock: {lock.name} ({lock.address:#x}) is taken after {held.name} "
                f"({held.address:#x}), lowest address comes first; {other}"
            )
        if before:
            return f"possible deadlock: {lock.name} is taken after {held.name}; {other}"
        return None
