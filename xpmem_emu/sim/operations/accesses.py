"""Loads, stores and atomic operations of a run: made, and recorded word by word.

Every store has a value of its own, so that a load tells which store it saw. An access of many
bytes is recorded as one of each tracked word that it covers, because nothing promises more than
that. What a child does to its copy of a region is not recorded.
"""

import re
from collections.abc import Callable
from enum import Enum
from itertools import count
from typing import NamedTuple

from msgspec.structs import replace

from xpmem_emu.errors import Signal
from xpmem_emu.judge.history import FOREVER, Access, History, TrackedWord, Verb
from xpmem_emu.kernel import calls, device_calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.interface import Done, Failed, Raised
from xpmem_emu.mmu.guest import Guest
from xpmem_emu.sim.operations.registry import (
    GUEST_AT,
    UNTRACKED,
    WORD_OFFSETS,
    Region,
    Registry,
    TaskKey,
    View,
)
from xpmem_emu.sim.plan import Op, Operation, RegionKind
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.units import PAGE_SIZE

Begin = Callable[..., None]
WORD_SIZE = 8
_ARRIVED = re.compile(r"(\d+) of \d+ bytes arrived(?:, (\d+) more may have)?")
_VERBS = {"add": Verb.ADD, "swap": Verb.SWAP, "compare_swap": Verb.COMPARE_SWAP, "fetch": Verb.LOAD}


class Certainty(Enum):
    """What the end of a call tells about its effect."""

    SURE = "sure"
    MAYBE = "maybe"


class Torn(Enum):
    """What of a store may be there when it fails."""

    WHOLE = "all or nothing"
    PARTS = "any part"


class _Spot(NamedTuple):
    """A tracked word, as somebody reaches it."""

    place: Region | View
    page: int
    word: int


Landed = Callable[[], None]
"""To be called when a store lands."""
SpottedWords = list[tuple[int, _Spot]]
"""(offset in an access, word) of what it covers."""


class Accesses:
    """Makes accesses through `begin` and enters them in the history."""

    def __init__(
        self, cast: Registry, history: History, begin: Begin, clock: Callable[[], int]
    ) -> None:
        """`clock` gives the number of the present step."""
        self._clock = clock
        self._cast = cast
        self._history = history
        self._begin = begin
        self.caught: Callable[[int, int, int, int], Landed] = lambda *where: _ignored
        """Told of a store past every call that begins: of which task, where, how many bytes. Gives
        whom to tell when it lands."""
        self._values = count(1)
        self._filled: dict[int, int] = {}
        """What every word of a region was, once it was filled."""

    def value(self) -> int:
        """A value that no other store of the run has."""
        return next(self._values)

    def load(self, operation: Operation, actor: TaskKey) -> None:
        """Load a word, whole pages, or any bytes."""
        place = self._place(operation, actor)
        if place is None:
            return
        span = _span(operation)
        call: Call = calls.Load(actor.pid, place.address + span.start, len(span))
        if device := operation.device:
            address = address_for(device, place.address + span.start)
            call = device_calls.DeviceLoad(actor.pid, device, address, len(span))
        words = self._words(place, operation, span, actor)
        if words is not None:
            self._load(actor, call, words)

    def store(self, operation: Operation, actor: TaskKey) -> None:
        """Store a word, whole pages of words that are all the same, or any bytes around words."""
        place = self._place(operation, actor)
        if place is None or self._is_of_parent(place, actor):
            return
        span = _span(operation)
        words = self._words(place, operation, span, actor)
        if words is None:
            return
        value = self.value()
        data = bytearray(value.to_bytes(WORD_SIZE, "little") * (len(span) // WORD_SIZE + 1))
        del data[len(span) :]
        for at, _ in words:
            data[at : at + WORD_SIZE] = value.to_bytes(WORD_SIZE, "little")
        # A word is stored whole or, when the store fails, not at all; more pages may be partly.
        crosses = span.start // PAGE_SIZE != (span.stop - 1) // PAGE_SIZE
        extent = Torn.PARTS if crosses else Torn.WHOLE
        call: Call = calls.Store(actor.pid, place.address + span.start)
        if device := operation.device:
            address = address_for(device, place.address + span.start)
            call = device_calls.DeviceStore(actor.pid, device, address)
        filled = place.number if operation.pages and isinstance(place, Region) else UNTRACKED
        self._store(actor, call, bytes(data), words, value, extent, filled)

    def read(self, actor: TaskKey, call: Call, region: Region, page: int, word: int) -> None:
        """Make a call that reads one word of a region."""
        self._load(actor, call, [(0, _Spot(region, page, word))])

    def write(self, actor: TaskKey, call: Call, region: Region, page: int, word: int) -> None:
        """Make a call that writes one word of a region."""
        value = self.value()
        data = value.to_bytes(WORD_SIZE, "little")
        self._store(actor, call, data, [(0, _Spot(region, page, word))], value, Torn.WHOLE)

    def _load(self, actor: TaskKey, call: Call, words: SpottedWords) -> None:
        begin = self._clock() + 1

        def ended(ticket: Ticket) -> None:
            if isinstance(ticket.outcome, Done):
                for at, spot in words:
                    data = bytes(ticket.outcome.bulk[at : at + WORD_SIZE])
                    if len(data) == WORD_SIZE and self._still(actor, spot):
                        seen = int.from_bytes(data, "little")
                        self._note(spot, Verb.LOAD, begin, seen=seen)

        self._begin(actor, call, b"", ended)

    def _store(
        self,
        actor: TaskKey,
        call: Call,
        data: bytes,
        words: SpottedWords,
        value: int,
        extent: Torn,
        filled: int = UNTRACKED,
    ) -> None:
        begin = self._clock() + 1

        def ended(ticket: Ticket) -> None:
            sure = isinstance(ticket.outcome, Done)
            if sure and filled != UNTRACKED:
                self._filled[filled] = value
            if sure or ticket.lost or extent is Torn.PARTS or _unanswered(ticket):
                for _, spot in words:
                    certain = sure and self._still(actor, spot)
                    self._note(
                        spot,
                        Verb.STORE,
                        begin,
                        value,
                        certainty=Certainty.SURE if certain else Certainty.MAYBE,
                    )

        self._begin(actor, call, data, ended)

    def amo(self, operation: Operation, actor: TaskKey) -> None:
        """An atomic operation on a word; `add` adds 1."""
        place = self._place(operation, actor)
        if place is None:
            return
        if isinstance(place, View) and place.region == UNTRACKED:
            return
        verb = _VERBS[operation.detail]
        operand = 1 if verb is Verb.ADD else self.value()
        compare = operation.at_ns % 4 if verb is Verb.COMPARE_SWAP else 0
        address = place.address + operation.page * PAGE_SIZE + WORD_OFFSETS[operation.word]
        # Whoever asks, the home partition does it: nothing here depends on the asker's session.
        owned = place if isinstance(place, Region) else self._cast.regions[place.region]
        first = 0 if isinstance(place, Region) else place.page
        begin = self._clock() + 1

        def ended(ticket: Ticket) -> None:
            seen = ticket.outcome.value if isinstance(ticket.outcome, Done) else None
            # A refusal by the word's own kernel is definite; a lost answer is not.
            if seen is not None or not isinstance(ticket.outcome, Failed):
                spot = _Spot(owned, operation.page + first, operation.word)
                certainty = Certainty.MAYBE if seen is None else Certainty.SURE
                self._note(spot, verb, begin, operand, compare, seen, certainty)

        call = calls.AtomicOp(actor.pid, address, operation.detail, operand, compare)
        self._begin(actor, call, b"", ended)

    def bte(self, operation: Operation, actor: TaskKey) -> None:
        """A transfer from a place that was filled, and is stored into no more. Words that arrived
        are stores, those of which nobody knows may be, and none behind them."""
        source, into = self._place(operation, actor), operation.into
        target = self._cast.views.get(into) or self._cast.regions.get(into)
        if source is None or target is None or target.actor != actor:
            return
        value = self._filled.get(source.region if isinstance(source, View) else source.number)
        if value is None:
            return
        whole = replace(operation, page=0, offset=0)
        words = self._words(target, whole, range(operation.size), actor) or []
        begin = self._clock() + 1

        def ended(ticket: Ticket) -> None:
            arrived, possible = _arrived(ticket, operation.size)
            for at, spot in words:
                if at + WORD_SIZE <= possible:
                    sure = at + WORD_SIZE <= arrived and self._still(actor, spot)
                    certainty = Certainty.SURE if sure else Certainty.MAYBE
                    self._note(spot, Verb.STORE, begin, value, certainty=certainty)

        call = device_calls.BteCopy(actor.pid, source.address, target.address, operation.size)
        self._begin(actor, call, b"", ended)

    def begin_late(self, view: View, page: int, word: int) -> Landed:
        """A partition is stopped in the middle of a store."""
        address = view.address + page * PAGE_SIZE + WORD_OFFSETS[word]
        return self.caught(view.actor.partid, view.actor.pid, address, WORD_SIZE)

    def late(self, view: View, page: int, word: int, value: int, begin: int) -> None:
        """A store that a stopped partition had begun at step `begin` has just landed."""
        self._note(_Spot(view, page, word), Verb.STORE, begin, value)

    def _place(self, operation: Operation, actor: TaskKey) -> Region | View | None:
        if operation.attachment:
            view = self._cast.views.get(operation.attachment)
            return view if view is not None and view.actor == actor else None
        return self._cast.regions.get(operation.region)

    def _is_of_parent(self, place: Region | View, actor: TaskKey) -> bool:
        """A child would store into what its parent may have unmapped meanwhile."""
        return (
            isinstance(place, Region)
            and place.actor != actor
            and place.kind in (RegionKind.SHARED, RegionKind.FILE, RegionKind.MSPEC)
        )

    def _words(
        self, place: Region | View, operation: Operation, span: range, actor: TaskKey
    ) -> SpottedWords | None:
        """(where in the access, which) of the tracked words that `span` covers whole. None: it
        would end in what is not known to be there, or tear a word."""
        if isinstance(place, Region) and place.actor != actor:
            return []
        words: SpottedWords = []
        behind = self._cast.views.get(operation.behind)
        for page in range(span.start // PAGE_SIZE, (span.stop - 1) // PAGE_SIZE + 1):
            there: Region | View | None = place if page < place.pages else behind
            if there is None:
                return None
            for word, offset in enumerate(WORD_OFFSETS):
                at = page * PAGE_SIZE + offset - span.start
                if 0 <= at <= len(span) - WORD_SIZE:
                    inner = page if there is place else page - place.pages
                    words.append((at, _Spot(there, inner, word)))
                elif operation.op is Op.STORE and -WORD_SIZE < at < len(span):
                    return None
        return words

    def _still(self, actor: TaskKey, spot: _Spot) -> bool:
        """Whether what is at the word's address can only be what was there."""
        address = spot.place.address + spot.page * PAGE_SIZE
        return self._cast.uncovered(actor, address, PAGE_SIZE)

    def _note(
        self,
        spot: _Spot,
        verb: Verb,
        begin: int,
        operand: int = 0,
        compare: int = 0,
        seen: int | None = None,
        certainty: Certainty = Certainty.SURE,
    ) -> None:
        sure = certainty is Certainty.SURE
        end = self._clock() if sure else FOREVER
        place, page = spot.place, spot.page
        if isinstance(place, Region):
            name, home, actor, since = place.number, -1, -1, 0
        else:
            name, page = place.region, page + place.page
            home = self._cast.home(name)
            actor, since = place.actor.partid, place.since
        if name == UNTRACKED:
            return
        self._history.accesses.append(
            Access(
                TrackedWord(name, page, spot.word),
                verb,
                begin,
                end,
                operand,
                compare,
                seen,
                sure,
                home,
                actor,
                since,
            )
        )


def address_for(device: str, address: int) -> int:
    """What a device of a planned task calls an address of the task."""
    return address + GUEST_AT * (device == Guest.kind)


def _ignored() -> None:
    """Nobody keeps track of what memory holds."""


def _arrived(ticket: Ticket, size: int) -> tuple[int, int]:
    """How many bytes of a transfer are at its target, and how many may be, by its answer."""
    if isinstance(ticket.outcome, Done):
        return size, size
    if not isinstance(ticket.outcome, Failed):
        return 0, size  # killed, or nobody knows
    told = _ARRIVED.match(ticket.outcome.cause)
    arrived, more = (int(each or 0) for each in told.groups()) if told else (0, 0)
    return arrived, arrived + more


def _unanswered(ticket: Ticket) -> bool:
    """Whether a store may be at its home although its task was told of a signal: one that went by
    message and got no answer is a machine check, or its task was killed meanwhile."""
    if not isinstance(ticket.outcome, Raised):
        return False
    return ticket.outcome.info.forced or ticket.outcome.info.signal is Signal.SIGKILL


def _span(operation: Operation) -> range:
    """Which bytes an access covers, from the beginning of the first page of its place on."""
    first = operation.page * PAGE_SIZE
    if operation.size:
        first += operation.offset
        return range(first, first + operation.size)
    if operation.pages:
        return range(first, first + operation.pages * PAGE_SIZE)
    first += WORD_OFFSETS[operation.word]
    return range(first, first + WORD_SIZE)
