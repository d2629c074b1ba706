"""Loads, stores and atomic operations of a run: made, and recorded word by word.

Every store has a value of its own, so that a load tells which store it saw. A bulk access covers
whole pages; of those the tracked words are recorded, each as an operation of its own, because
nothing promises more than that.
"""

from collections.abc import Callable
from enum import Enum
from itertools import count

from xpmem_emu.errors import Signal
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Done, Failed, Raised
from xpmem_emu.sim.cast import WORD_OFFSETS, Actor, Cast, Region, View
from xpmem_emu.sim.history import FOREVER, Access, History, Verb, Word
from xpmem_emu.sim.plan import Kind, Operation
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.units import PAGE_SIZE

Begin = Callable[..., None]
_WORD = 8
_VERBS = {"add": Verb.ADD, "swap": Verb.SWAP, "compare_swap": Verb.COMPARE_SWAP,
          "fetch": Verb.LOAD}  # fmt: skip


class Certainty(Enum):
    """What the end of a call tells about its effect."""

    SURE = "sure"
    MAYBE = "maybe"


class Accesses:
    """Makes accesses through `begin` and enters them in the history."""

    def __init__(
        self, cast: Cast, history: History, begin: Begin, clock: Callable[[], int]
    ) -> None:
        """`clock` gives the number of the present step."""
        self._clock = clock
        self._cast = cast
        self._history = history
        self._begin = begin
        self._values = count(1)

    def value(self) -> int:
        """A value that no other store of the run has."""
        return next(self._values)

    def load(self, operation: Operation, actor: Actor) -> None:
        """Load a word, or whole pages."""
        place = self._place(operation, actor)
        if place is None:
            return
        if operation.pages:
            address, size = _address(place, operation, 0), operation.pages * PAGE_SIZE
            offsets = _tracked(operation.pages)
        else:
            address, size = _address(place, operation, WORD_OFFSETS[operation.word]), _WORD
            offsets = [(0, 0, operation.word)]
        begin = self._clock() + 1

        def ended(ticket: Ticket) -> None:
            if isinstance(ticket.outcome, Done):
                for at, page, word in offsets:
                    data = bytes(ticket.outcome.bulk[at : at + _WORD])
                    seen = int.from_bytes(data, "little")
                    self._note(
                        place, operation.page + page, word, Verb.LOAD, begin, seen=seen
                    )

        self._begin(actor, calls.Load(actor.pid, address, size), b"", ended)

    def store(self, operation: Operation, actor: Actor) -> None:
        """Store a word, or whole pages of words that are all the same."""
        place = self._place(operation, actor)
        if place is None:
            return
        mine = not isinstance(place, Region) or place.actor == actor
        if isinstance(place, Region) and not mine and place.kind in (Kind.SHARED, Kind.FILE):
            return  # a child would store into what its parent may have unmapped meanwhile
        value = self.value()
        if operation.pages:
            address = _address(place, operation, 0)
            data = value.to_bytes(_WORD, "little") * (operation.pages * PAGE_SIZE // _WORD)
            offsets = _tracked(operation.pages)
        else:
            address = _address(place, operation, WORD_OFFSETS[operation.word])
            data = value.to_bytes(_WORD, "little")
            offsets = [(0, 0, operation.word)]
        begin = self._clock() + 1

        def ended(ticket: Ticket) -> None:
            sure = isinstance(ticket.outcome, Done)
            # A word is stored whole or, when the store fails, not at all; more pages may be partly.
            if mine and (sure or ticket.lost or operation.pages > 1 or _unanswered(ticket)):
                for _, page, word in offsets:
                    self._note(
                        place, operation.page + page, word, Verb.STORE, begin, value,
                        certainty=Certainty.SURE if sure else Certainty.MAYBE,
                    )  # fmt: skip

        self._begin(actor, calls.Store(actor.pid, address), data, ended)

    def amo(self, operation: Operation, actor: Actor) -> None:
        """An atomic operation on a word; `add` adds 1."""
        place = self._place(operation, actor)
        if place is None:
            return
        verb = _VERBS[operation.detail]
        operand = 1 if verb is Verb.ADD else self.value()
        compare = operation.at_ns % 4 if verb is Verb.COMPARE_SWAP else 0
        address = _address(place, operation, WORD_OFFSETS[operation.word])
        # Whoever asks, the home partition does it: nothing here depends on the asker's session.
        owned = place if isinstance(place, Region) else self._cast.regions[place.region]
        first = 0 if isinstance(place, Region) else place.page
        begin = self._clock() + 1

        def ended(ticket: Ticket) -> None:
            seen = ticket.outcome.value if isinstance(ticket.outcome, Done) else None
            # A refusal by the word's own kernel is definite; a lost answer is not.
            if seen is not None or not isinstance(ticket.outcome, Failed):
                self._note(
                    owned, operation.page + first, operation.word, verb, begin, operand, compare,
                    seen, Certainty.MAYBE if seen is None else Certainty.SURE,
                )  # fmt: skip

        call = calls.Amo(actor.pid, address, operation.detail, operand, compare)
        self._begin(actor, call, b"", ended)

    def late(self, view: View, page: int, word: int, value: int, begin: int) -> None:
        """A store that a stopped partition had begun at step `begin` has just landed."""
        self._note(view, page, word, Verb.STORE, begin, value)

    def _place(self, operation: Operation, actor: Actor) -> Region | View | None:
        if operation.attachment:
            view = self._cast.views.get(operation.attachment)
            return view if view is not None and view.actor == actor else None
        return self._cast.regions.get(operation.region)

    def _note(
        self,
        place: Region | View,
        page: int,
        word: int,
        verb: Verb,
        begin: int,
        operand: int = 0,
        compare: int = 0,
        seen: int | None = None,
        certainty: Certainty = Certainty.SURE,
    ) -> None:
        sure = certainty is Certainty.SURE
        end = self._clock() if sure else FOREVER
        if isinstance(place, Region):
            name, home, actor, since = place.number, -1, -1, 0
        else:
            name, page = place.region, page + place.page
            home = self._cast.regions[place.region].actor.partid
            actor, since = place.actor.partid, place.since
        self._history.accesses.append(Access(
            Word(name, page, word), verb, begin, end, operand, compare, seen, sure, home, actor,
            since,
        ))  # fmt: skip


def _unanswered(ticket: Ticket) -> bool:
    """Whether a store may be at its home although its task was told of a signal: one that went by
    message and got no answer is a machine check, or its task was killed meanwhile."""
    if not isinstance(ticket.outcome, Raised):
        return False
    return ticket.outcome.info.forced or ticket.outcome.info.signal is Signal.SIGKILL


def _tracked(pages: int) -> list[tuple[int, int, int]]:
    """(offset in the bulk, page, word) of every tracked word of whole pages."""
    return [
        (page * PAGE_SIZE + offset, page, word)
        for page in range(pages)
        for word, offset in enumerate(WORD_OFFSETS)
    ]


def _address(place: Region | View, operation: Operation, offset: int) -> int:
    return place.address + operation.page * PAGE_SIZE + offset
