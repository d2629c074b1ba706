"""A call to a simulated kernel that is under way, and what becomes of it."""

from collections.abc import Callable

from xpmem_emu.client.operations import OperationAnswer
from xpmem_emu.errors import KernelError, SignalInfo, Signalled
from xpmem_emu.kernel.interface import Done, Failed, Outcome, Raised


class Stuck(Exception):
    """Virtual time ran past the limit while somebody still waited: a hang."""


class Ticket:
    """A call under way. `lost`: its partition is gone, there will be no outcome."""

    def __init__(self, partid: int, then: "Callable[[Ticket], None] | None" = None) -> None:
        self.partid = partid
        self.outcome: Outcome | None = None
        self.lost = False
        self._then = then

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.lost or self.outcome is not None

    def end(self, outcome: Outcome | None) -> None:
        """The call ended, or with None: was lost."""
        self.outcome, self.lost = outcome, outcome is None
        if self._then is not None:
            self._then(self)

    def answer(self) -> OperationAnswer:
        """The result. Raises KernelError or Signalled as the call ended."""
        match self.outcome:
            case Done(value=value, bulk=bulk):
                return OperationAnswer(value, bulk)
            case Failed(errno=number, cause=cause, remedy=remedy):
                raise KernelError(number, cause, remedy)
            case Raised(info=info):
                assert isinstance(info, SignalInfo)
                raise Signalled(info)
        raise Stuck("the call has not ended")
