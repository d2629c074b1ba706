"""The judges of a run: one module for each invariant or small group of them.

They share no logic with the kernel. What they know comes from the event stream, from the history
of calls, and from raw memory: page-table words, frame counts, bytes. Each is proven by a mutant
that it must catch (`sim/mutants`).
"""

from xpmem_emu.sim.checkers.agreement import Agreement
from xpmem_emu.sim.checkers.base import Checker, Scene, Violation
from xpmem_emu.sim.checkers.bounds import Bounds
from xpmem_emu.sim.checkers.containment import Containment
from xpmem_emu.sim.checkers.endings import Endings
from xpmem_emu.sim.checkers.exposure import Exposure
from xpmem_emu.sim.checkers.expulsions import Expulsions
from xpmem_emu.sim.checkers.forks import Forks
from xpmem_emu.sim.checkers.identity import Identity
from xpmem_emu.sim.checkers.installs import Installs
from xpmem_emu.sim.checkers.mappings import Mappings
from xpmem_emu.sim.checkers.once import Once
from xpmem_emu.sim.checkers.permits import Permits
from xpmem_emu.sim.checkers.pins import Pins
from xpmem_emu.sim.checkers.priority import Priority
from xpmem_emu.sim.checkers.proofs import Proofs
from xpmem_emu.sim.checkers.sessions import Sessions
from xpmem_emu.sim.checkers.shadow import Shadow
from xpmem_emu.sim.checkers.tables import Tables
from xpmem_emu.sim.checkers.waits import Waits

__all__ = ["Checker", "Scene", "Sessions", "Violation", "all_checkers"]


def all_checkers(scene: Scene) -> list[Checker]:
    """Every checker that watches the stream."""
    return [
        Containment(scene),
        Mappings(scene),
        Installs(scene),
        Pins(scene),
        Identity(scene),
        Once(scene),
        Bounds(scene),
        Expulsions(scene),
        Exposure(scene),
        Shadow(scene),
        Proofs(scene),
        Permits(scene),
        Tables(scene),
        Priority(scene),
        Endings(scene),
        Agreement(scene),
        Waits(scene),
        Forks(scene),
    ]
