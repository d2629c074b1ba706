"""What a mutant is; `table` has all of them.

Whoever completes a name wants the table and no kernel, so the module that breaks something is
imported by whoever breaks it.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from xpmem_emu.judge.invariants import Invariant


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break the protocol. `caught_by`: the invariants that may report it."""

    name: str
    meaning: str
    caught_by: frozenset[Invariant]
    home: str
    """The module of `mutations` that has it, under the mutant's name."""
    swarm: str
    """Where it is hunted: `chaos`, unless what it breaks is not, or hardly, drawn there."""
    world: str
    """The small world that is about what it breaks, explored further than the others."""

    def broken(self) -> AbstractContextManager[Any]:
        """The kernel broken by it. Raises AttributeError when what it breaks is not there."""
        module = import_module(f"xpmem_emu.sim.mutations.{self.home}")
        breaks: AbstractContextManager[Any] = getattr(module, self.name)()
        return breaks


def mutant(
    name: str, meaning: str, caught_by: str, home: str, swarm: str = "chaos", world: str = ""
) -> Mutant:
    """A row of a table: `caught_by` names invariants, apart by blanks."""
    invariants = frozenset(Invariant[each] for each in caught_by.split())
    return Mutant(name, meaning, invariants, home, swarm, world)
