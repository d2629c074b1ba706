"""What every checker stands on: the scene it watches, what it is told, and how it reports."""

from typing import ClassVar

from xpmem_emu.judge.invariants import Invariant, Judge
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.kernel.interface import Reply, Request


class Checker:
    """Base: sees events of the types it names, then the end of each step."""

    judges: ClassVar[tuple[Invariant, ...]]
    """What it may report."""
    looks_at: ClassVar[str]
    """What it compares with what, for docs/simulation.md."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @classmethod
    def judge(cls) -> Judge:
        """Itself, as an entry of the list of judges."""
        return Judge(cls.__module__.rpartition(".")[2], cls.judges, cls.looks_at)

    def report(self, invariant: Invariant, partid: int, text: str) -> None:
        """Note a violation of what it judges: who reads the list must find who said it."""
        assert invariant in self.judges, f"{type(self).__name__} does not judge {invariant}"
        self.scene.report(invariant, partid, text)

    def handlers(self) -> EventHandlers:
        """What looks at which event."""
        return {}

    def asked(self, partid: int, request: Request) -> None:
        """`partid` is about to take a call."""

    def answered(self, partid: int, reply: Reply) -> None:
        """Its answer, in the step that gave it and after the events of that step."""

    def stepped(self, partid: int) -> None:
        """A step of `partid` with at least one event ended; raw memory is as it left it."""

    def crashed(self, partid: int) -> None:
        """The process of `partid` vanished."""

    def resumed(self, partid: int, stopped_ns: int) -> None:
        """`partid` goes on after it was stopped for so long."""
