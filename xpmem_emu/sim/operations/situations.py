"""Situations that show in what tasks ask for: of whom, and in what state of things. Nothing is
judged here. States are what answers say, so they lag behind what is true by a moment.
"""

from collections.abc import Callable
from errno import EACCES, EFAULT
from typing import TYPE_CHECKING

from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.device_calls import DeviceLoad
from xpmem_emu.kernel.interface import Done, Failed, Raised
from xpmem_emu.sim.operations.registry import UNTRACKED, Registry, TaskKey, View
from xpmem_emu.sim.plan import Op, Operation, RegionKind
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.units import PAGE_SIZE

if TYPE_CHECKING:
    Reach = Callable[[str], None]

_HUGE, _VAST, _WIDE = 1 << 30, 1 << 40, 1 << 63
_TEARDOWN = (calls.XpmemClose, calls.Exit, calls.Kill, calls.Exec)


class CallSituations:
    """Looks at each call of a run as it ends."""

    def __init__(self, cast: Registry, reach: "Reach") -> None:
        self._cast = cast
        self._reach = reach
        self._dead: set[int] = set()
        """Regions whose segments are gone."""
        self._unwritable: set[int] = set()
        """Exported regions that their owner may only read."""
        self._dropped: set[TaskKey] = set()
        """Tasks that were root."""

    def ended(self, operation: Operation, actor: TaskKey, call: Call, ticket: Ticket) -> None:
        """A call of an operation ended."""
        done = isinstance(ticket.outcome, Done)
        if done:
            self._note(operation, actor, call)
        if isinstance(ticket.outcome, Raised) and "touch it first" in ticket.outcome.info.reason:
            self._reach("hole_of_mspec_refused")
        if operation.op is Op.CALL and _is_extreme(operation):
            self._reach("extreme_argument_taken" if done else "extreme_argument_refused")
        match call:
            case calls.AtomicOp() if self._is_of_dead(operation.attachment):
                self._reach("amo_after_remove")
                region = self._cast.regions.get(self._cast.views[operation.attachment].region)
                if region is not None and region.kind is RegionKind.UNCACHED:
                    self._reach("word_of_removed_segment")
            case DeviceLoad() if (
                isinstance(ticket.outcome, Failed) and "cached alias" in ticket.outcome.cause
            ):
                self._reach("cached_alias_refused")
            case calls.Fork() if isinstance(ticket.outcome, Raised):
                self._reach("fork_ended_by_signal")
            case calls.XpmemGet() if (
                isinstance(ticket.outcome, Failed) and ticket.outcome.errno == EACCES
            ):
                self._reach("get_not_permitted")
                if actor in self._dropped:
                    self._reach("setuid_away_from_root")
            case calls.Load() | calls.Store() if operation.size:
                self._beside(operation)
            case calls.XpmemMake(vaddr=vaddr, size=size) if vaddr + size >= _WIDE:
                self._reach("segment_to_the_top")
            case calls.XpmemCopy(size=size) if size >= _HUGE:
                self._reach("copy_of_a_giant")
                fault = isinstance(ticket.outcome, Failed) and ticket.outcome.errno == EFAULT
                if size >= _VAST and fault:
                    self._reach("copy_of_a_tebibyte")

    def _note(self, operation: Operation, actor: TaskKey, call: Call) -> None:
        """What a call that succeeded changes, or shows."""
        match call:
            case calls.XpmemRemove():
                segment = self._cast.segments.get(operation.segment)
                self._dead |= {segment.region} if segment is not None else set()
            case calls.XpmemMake():
                self._dead.discard(operation.region)
            case calls.Mprotect() if operation.op is Op.PROTECT:
                (self._unwritable.add if operation.detail == "read" else self._unwritable.discard)(
                    operation.region
                )
            case calls.Fork():
                if self._mine(actor) & self._unwritable & self._viewed():
                    self._reach("fork_of_read_only_exporter")
            case calls.Store() if operation.attachment:
                view = self._cast.views.get(operation.attachment)
                if view is not None and view.region in self._unwritable:
                    self._reach("store_through_read_only_source")
            case calls.Setuid(uid=uid) if uid:
                self._dropped.add(actor)
            case calls.Pwrite() if operation.op is Op.CALL and not operation.size:
                self._reach("empty_pwrite")
            case calls.XpmemDetach() | calls.XpmemRelease():
                self._cut_short(operation, actor)
        if isinstance(call, _TEARDOWN):
            self._dead |= self._mine(actor)

    def _mine(self, actor: TaskKey) -> set[int]:
        return {each.number for each in self._cast.regions.values() if each.actor == actor}

    def _viewed(self) -> set[int]:
        return {view.region for view in self._cast.views.values()}

    def _is_of_dead(self, attachment: int) -> bool:
        view = self._cast.views.get(attachment)
        return view is not None and view.region in self._dead

    def _beside(self, operation: Operation) -> None:
        """Bytes up to the very end of an attachment, or over it, with a dead one behind."""
        view = self._cast.views.get(operation.attachment)
        if view is None or not self._is_of_dead(operation.behind):
            return
        end = operation.page * PAGE_SIZE + operation.offset + operation.size
        if end == view.pages * PAGE_SIZE:
            self._reach("unaligned_beside_dead_area")
        elif end > view.pages * PAGE_SIZE:
            self._reach("access_into_dead_area")

    def _cut_short(self, operation: Operation, actor: TaskKey) -> None:
        view = self._cast.views.get(operation.attachment)
        if view is not None and self._is_replaced(actor, view):
            self._reach("detach_of_partly_replaced")

    def _is_replaced(self, actor: TaskKey, view: View) -> bool:
        size = view.pages * PAGE_SIZE
        return view.region != UNTRACKED and not self._cast.uncovered(actor, view.address, size)


def _is_extreme(operation: Operation) -> bool:
    return any(
        isinstance(value, int) and not -_WIDE < value < _WIDE - 1
        for value in operation.values.values()
    )
