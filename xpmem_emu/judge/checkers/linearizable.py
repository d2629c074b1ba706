"""S8 for one word: a Wing-Gong-Lowe search.

Each operation takes effect at one point between its begin and its end. The search tries orders and
remembers (done, value) pairs that lead nowhere. It takes at once a load that fits, because that
changes nothing, and a store that nobody has to see over a value that nobody has to see. An
operation that may not have happened may be left out. Three answers: linearizable, not, or unknown
when the step budget is spent.
"""

from collections.abc import Sequence
from enum import Enum

from xpmem_emu.judge.history import ABSENT, FOREVER, Access, Verb

BUDGET = 50_000
_MASK = (1 << 64) - 1


class Search(Enum):
    """What the search found."""

    YES = "linearizable"
    NO = "not linearizable"
    UNKNOWN = "unknown"


def linearizable(operations: Sequence[Access], initial: int = 0, budget: int = BUDGET) -> Search:
    """Whether some order of `operations` explains every answer that was given."""
    return _Search(sorted(_relevant(operations), key=lambda each: each.begin), budget).run(initial)


def _after(operation: Access, value: int) -> int | None:
    """The word's value after `operation` on `value`; None when its answer says otherwise."""
    if operation.seen is not None and operation.seen != value:
        return None
    if operation.verb in (Verb.LOAD, Verb.STORE):
        return value if operation.verb is Verb.LOAD else operation.operand
    if value == ABSENT:
        return None
    if operation.verb is Verb.ADD:
        return (value + operation.operand) & _MASK
    if operation.verb is Verb.SWAP:
        return operation.operand
    return operation.operand if value == operation.compare else value


def _effect(operation: Access) -> tuple[Verb, int, int]:
    return operation.verb, operation.operand, operation.compare


def _relevant(operations: Sequence[Access]) -> list[Access]:
    """Without loads and stores that may not have happened and that nobody can have seen."""
    seen = {each.seen for each in operations if each.seen is not None}
    adds = sum(each.verb is Verb.ADD for each in operations)
    return [
        each
        for each in operations
        if each.sure
        or each.verb not in (Verb.LOAD, Verb.STORE, Verb.SWAP)
        or (
            each.verb is not Verb.LOAD
            and any(each.operand + more in seen for more in range(adds + 1))
        )
    ]


class _Search:
    def __init__(self, operations: list[Access], budget: int) -> None:
        self._operations = operations
        self._budget = budget
        self._plain = all(each.verb in (Verb.LOAD, Verb.STORE) for each in operations)
        self._required = sum(1 << i for i, each in enumerate(operations) if each.sure)
        self._before = [
            sum(1 << j for j, other in enumerate(operations) if each.end < other.begin)
            for each in operations
        ]
        """Of each operation, those that begin after its end."""
        self._twin = [self._earlier_twins(i) for i in range(len(operations))]
        """Operations that may not have happened, are alike and never end, go in order: which of
        them happened makes no difference."""

    def _earlier_twins(self, i: int) -> int:
        each = self._operations[i]
        if each.sure or each.end < FOREVER:
            return 0
        return sum(
            1 << j
            for j, other in enumerate(self._operations[:i])
            if not other.sure and other.end == FOREVER and _effect(other) == _effect(each)
        )

    def run(self, initial: int) -> Search:
        """Depth first, with an explicit stack of (done, value)."""
        stack = [(0, initial)]
        visited = {(0, initial)}
        while stack:
            done, value = stack.pop()
            if done & self._required == self._required:
                return Search.YES
            self._budget -= 1
            if self._budget < 0:
                return Search.UNKNOWN
            for state in self._next(done, value):
                if state not in visited:
                    visited.add(state)
                    stack.append(state)
        return Search.NO

    def _needed(self, done: int) -> set[int] | None:
        """The values that pending loads must see; None where operations build on each other."""
        if not self._plain:
            return None
        return {
            each.seen
            for i, each in enumerate(self._operations)
            if each.seen is not None and not done >> i & 1
        }

    def _next(self, done: int, value: int) -> list[tuple[int, int]]:
        """States after one more operation; only one when a load can simply be taken. The ones to
        try first come last: what surely happened, in the order of begin."""
        needed = self._needed(done)
        likely: list[tuple[int, int]] = []
        states: list[tuple[int, int]] = []
        deadline = min(
            (
                each.end
                for i, each in enumerate(self._operations)
                if each.sure and not done >> i & 1
            ),
            default=0,
        )
        for i, each in enumerate(self._operations):
            if each.begin > deadline:
                break
            if done >> i & 1 or self._before[i] & done or self._twin[i] & ~done:
                continue
            result = _after(each, value)
            if result is None:
                continue
            if result == value and each.sure and each.verb is Verb.LOAD:
                return [(done | 1 << i, value)]
            if result == value and not each.sure:
                continue  # as if it had not happened, which is allowed
            if needed is not None and each.sure and not {value, result} & needed:
                return [(done | 1 << i, result)]  # neither what goes nor what comes is missed
            (likely if each.sure else states).append((done | 1 << i, result))
        return states + likely[::-1]
