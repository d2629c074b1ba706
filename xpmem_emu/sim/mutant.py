"""What a mutant is: see mutants, the table of all."""

from dataclasses import dataclass

from xpmem_emu.sim.invariants import Invariant
from xpmem_emu.sim.mutations import Mutation


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break the protocol. `caught_by`: the invariants that may report it."""

    name: str
    meaning: str
    caught_by: frozenset[Invariant]
    broken: Mutation
    swarm: str
    """Where it is hunted: `chaos`, unless what it breaks is not, or hardly, drawn there."""
    world: str
    """The small world that is about what it breaks, explored further than the others."""


def mutant(
    name: str, meaning: str, caught_by: str, broken: Mutation, swarm: str = "chaos", world: str = ""
) -> Mutant:
    """A row of a table: `caught_by` names invariants, apart by blanks."""
    return Mutant(
        name,
        meaning,
        frozenset(Invariant[each] for each in caught_by.split()),
        broken,
        swarm,
        world,
    )
