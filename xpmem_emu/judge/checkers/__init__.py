"""The judges of a run: one module for each invariant or small group of them.

They share no logic with the kernel. What they know comes from the event stream, from the history
of calls, and from raw memory: page-table words, frame counts, bytes. Each is proven by a mutant
that it must catch (`sim/mutations`). What the invariants are is in `judge/invariants`.
"""

from xpmem_emu.judge.checkers import memory, quiet, teardown
from xpmem_emu.judge.checkers.agreement import Agreement
from xpmem_emu.judge.checkers.aliases import Aliases
from xpmem_emu.judge.checkers.base import Checker
from xpmem_emu.judge.checkers.bounds import Bounds
from xpmem_emu.judge.checkers.claims import Claims
from xpmem_emu.judge.checkers.containment import Containment
from xpmem_emu.judge.checkers.crossings import Crossings
from xpmem_emu.judge.checkers.endings import Endings
from xpmem_emu.judge.checkers.exposure import Exposure
from xpmem_emu.judge.checkers.expulsions import Expulsions
from xpmem_emu.judge.checkers.forks import Forks
from xpmem_emu.judge.checkers.identity import Identity
from xpmem_emu.judge.checkers.installs import Installs
from xpmem_emu.judge.checkers.mappings import Mappings
from xpmem_emu.judge.checkers.once import Once
from xpmem_emu.judge.checkers.permits import Permits
from xpmem_emu.judge.checkers.pins import Pins
from xpmem_emu.judge.checkers.priority import Priority
from xpmem_emu.judge.checkers.proofs import Proofs
from xpmem_emu.judge.checkers.repeats import Repeats
from xpmem_emu.judge.checkers.shadow import Shadow
from xpmem_emu.judge.checkers.tables import Tables
from xpmem_emu.judge.checkers.translations import Translations
from xpmem_emu.judge.checkers.tries import Tries
from xpmem_emu.judge.checkers.waits import Waits
from xpmem_emu.judge.checkers.wakeups import Wakeups
from xpmem_emu.judge.invariants import Invariant, Judge
from xpmem_emu.judge.scene import Scene

_WATCHING: tuple[type[Checker], ...] = (
    Containment,
    Mappings,
    Installs,
    Pins,
    Identity,
    Once,
    Bounds,
    Expulsions,
    Exposure,
    Shadow,
    Proofs,
    Permits,
    Tables,
    Priority,
    Endings,
    Agreement,
    Waits,
    Forks,
    Wakeups,
    Crossings,
    Tries,
    Translations,
    Aliases,
    Repeats,
)
_BESIDE = (
    memory.JUDGE,
    teardown.JUDGE,
    quiet.JUDGE,
    Judge(
        "the run itself",
        (Invariant.L3, Invariant.L4, Invariant.S8, Invariant.S10),
        "after healing: sessions, calls, and whether everybody sees what a neighbour stores then",
    ),
    Judge("the hash of the stream", (Invariant.D1,), "every event of every kernel, run again"),
)
"""Judges that do not watch the stream: they look once, at the end or at what was noted."""


def all_checkers(scene: Scene) -> list[Checker]:
    """Every checker that watches the stream of a simulated run."""
    return [kind(scene) for kind in _WATCHING]


def judges() -> list[Judge]:
    """Everybody who judges, and what; `Claims` in streams of real processes only."""
    return [*(kind.judge() for kind in _WATCHING), Claims.judge(), *_BESIDE]
