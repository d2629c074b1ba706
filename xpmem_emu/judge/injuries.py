"""What was done to a run from outside, as far as it can excuse what a partition does about a peer.

Three kinds: a message between two partitions that a rule hit; a failpoint that acted; and a time in
which a partition was not itself - down, stopped, held back, or by a clock that is wrong. A message
that came twice, and one that came again from the past, hurts nobody. Strains (numbers near an
edge) and poisoned frames are no excuse here: a peer must live with them.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from xpmem_emu.failpoints.events import PointHit
from xpmem_emu.inject.events import InjectionBegin, InjectionEnd, InjectionHit
from xpmem_emu.inject.grammar import parse_injection
from xpmem_emu.inject.injections import ClockEffect, ClockInjection, PaceInjection

_HARMLESS = frozenset({"duplicate", "replay"})
_KEPT = 4096
"""So many hits between two partitions, or of points of one, are remembered."""


class Hit(NamedTuple):
    """A message that a rule hit."""

    time_ns: int
    kind: str
    number: int


class Shot(NamedTuple):
    """A failpoint that acted."""

    time_ns: int
    point: str
    action: str


@dataclass
class _Spell:
    """A time in which a partition was not itself. `end_ns`: None while it lasts."""

    end_ns: int | None


class Injuries:
    """Everything of a run so far."""

    def __init__(self) -> None:
        self.forgers: set[int] = set()
        """Partitions that say what no kernel says: nothing that they do, or suffer, binds."""
        self._hits: dict[tuple[int, int], deque[Hit]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._shots: dict[int, deque[Shot]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._spells: dict[int, list[_Spell]] = defaultdict(list)
        self._faults: dict[str, list[_Spell]] = {}
        self._down: dict[int, _Spell] = {}

    # -- what is heard of --------------------------------------------------------------------

    def hit(self, now_ns: int, event: InjectionHit) -> None:
        """A rule hit a message."""
        if event.verdict not in _HARMLESS:
            self._hits[event.src, event.dst].append(Hit(now_ns, event.kind, event.number))

    def acted(self, now_ns: int, partid: int, event: PointHit) -> None:
        """A failpoint acted."""
        action = event.action.lstrip("0123456789.%*")  # what it did, not how often it may
        self._shots[partid].append(Shot(now_ns, event.point, action))

    def begun(self, now_ns: int, event: InjectionBegin) -> None:
        """A fault is in force: of those that hit no messages, clocks and paces matter here."""
        fault = parse_injection(event.fault)
        if isinstance(fault, ClockInjection | PaceInjection):
            jump = isinstance(fault, ClockInjection) and fault.trouble is ClockEffect.JUMP
            spells = [(who, _Spell(now_ns if jump else None)) for who in fault.partids]
            for who, spell in spells:
                self._spells[who].append(spell)
            self._faults[event.name] = [spell for _, spell in spells]

    def ended(self, now_ns: int, event: InjectionEnd) -> None:
        """It is healed."""
        for spell in self._faults.pop(event.name, ()):
            if spell.end_ns is None:
                spell.end_ns = now_ns

    def went_down(self, now_ns: int, partid: int) -> None:
        """A process vanished, panicked or halted; until it boots again."""
        if partid not in self._down:
            self._down[partid] = _Spell(None)
            self._spells[partid].append(self._down[partid])

    def booted(self, now_ns: int, partid: int) -> None:
        """It runs again, or for the first time."""
        spell = self._down.pop(partid, None)
        if spell is not None:
            spell.end_ns = now_ns

    def stood_still(self, now_ns: int, partid: int) -> None:
        """It took no step for a while, until now."""
        self._spells[partid].append(_Spell(now_ns))

    # -- what is asked -----------------------------------------------------------------------

    def down(self, partid: int) -> bool:
        """Whether no kernel of that partition runs."""
        return partid in self._down

    def unwell(self, partid: int, since_ns: int) -> bool:
        """Whether it was not itself at any time since."""
        return any(
            spell.end_ns is None or spell.end_ns >= since_ns
            for spell in reversed(self._spells.get(partid, ()))
        )

    def hits(self, src: int, dst: int, since_ns: int) -> Iterator[Hit]:
        """The messages from one to another that were hit since, latest first."""
        for hit in reversed(self._hits.get((src, dst), ())):
            if hit.time_ns < since_ns:
                return
            yield hit

    def shots(self, partid: int, since_ns: int) -> Iterator[Shot]:
        """The failpoints that acted on a partition since, latest first."""
        for shot in reversed(self._shots.get(partid, ())):
            if shot.time_ns < since_ns:
                return
            yield shot
