"""State machines as tables: one enum of states, one of events, one table, one function.

A machine holds no state of its own; the object that lives through it does. An event that the
table does not list raises and changes nothing. The diagrams in the documentation are drawn
from the same tables, so they cannot lie.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from xpmem_emu.errors import KernelBug

_S = TypeVar("_S", bound=Enum)
_E = TypeVar("_E", bound=Enum)


class IllegalTransition(KernelBug):
    """The machine has no such arrow."""


class StateMachine(Generic[_S, _E]):
    """A named transition table. `table[(state, event)]` is the next state."""

    def __init__(self, name: str, initial: _S, table: Mapping[tuple[_S, _E], _S]) -> None:
        self.name = name
        self.initial = initial
        self._table = dict(table)

    def next(self, state: _S, event: _E) -> _S:
        """The state after `event`. Raises IllegalTransition when the table has no such arrow."""
        try:
            return self._table[state, event]
        except KeyError:
            raise IllegalTransition(f"{self.name}: {event.name} in {state.name}") from None

    def accepts(self, state: _S, event: _E) -> bool:
        """Whether `event` has an arrow out of `state`."""
        return (state, event) in self._table

    def mermaid(self) -> str:
        """The machine as a mermaid state diagram."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial.name}"]
        lines += [
            f"    {state.name} --> {target.name} : {event.name}"
            for (state, event), target in self._table.items()
        ]
        return "\n".join(lines) + "\n"
