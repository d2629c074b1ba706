"""What the tasks of a run did to memory, and what they were told: the input of S8 and S9.

A word is named by (region, page, word), whoever touches it and through whatever attachment. Times
are step numbers of the cluster. What an operation is worth depends on how it ended:

* SURE: it happened, once, between its two times;
* MAYBE: it happened or not, and not before its begin;
* NEVER: it did not happen, and is not recorded.

Whatever empties pages (munmap, DONTNEED, truncation) is a store of 0, or of ABSENT, to each of
their words: a load of that word that succeeds later must see what came after.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum

import msgspec

ABSENT = -1
"""The state of a word that is not mapped. No load can see it."""
FOREVER = 1 << 62


class Verb(Enum):
    """What an operation does to a word."""

    LOAD = "load"
    STORE = "store"
    ADD = "add"
    SWAP = "swap"
    COMPARE_SWAP = "compare_swap"


class TrackedWord(msgspec.Struct, frozen=True):
    """One aligned word of an exporter."""

    region: int
    page: int
    word: int


class Access(msgspec.Struct, frozen=True):
    """One operation on one word. `seen` is the value before it; None when nobody was told.

    `since`: when the permit was got through which it went, for an attachment; `home` and `actor`
    are the partitions. An exporter that gave the actor up in between is not bound by it.
    """

    word: TrackedWord
    verb: Verb
    begin: int
    end: int
    operand: int = 0
    compare: int = 0
    seen: int | None = None
    sure: bool = True
    home: int = -1
    actor: int = -1
    since: int = 0


class Wipe(msgspec.Struct, frozen=True):
    """Pages [page, page + pages) of a region became all `value`."""

    region: int
    page: int
    pages: int
    value: int
    begin: int
    end: int
    sure: bool = True


@dataclass
class History:
    """Everything that was recorded in a run."""

    accesses: list[Access] = field(default_factory=list)
    wipes: list[Wipe] = field(default_factory=list)

    def forget(self, regions: set[int]) -> None:
        """Leave out what concerns these regions."""
        if regions:
            self.accesses = [each for each in self.accesses if each.word.region not in regions]

    def by_word(self) -> dict[TrackedWord, list[Access]]:
        """The operations of each word that was touched, wipes included."""
        words: dict[TrackedWord, list[Access]] = defaultdict(list)
        for access in self.accesses:
            words[access.word].append(access)
        for wipe in self.wipes:
            for word, accesses in words.items():
                if word.region == wipe.region and 0 <= word.page - wipe.page < wipe.pages:
                    accesses.append(
                        Access(word, Verb.STORE, wipe.begin, wipe.end, wipe.value, sure=wipe.sure)
                    )
        return words
