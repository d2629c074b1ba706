"""Operations of a plan besides the everyday ones: exec, mremap, files by call, and any call.

They are carried out like all others - begun and never waited for - and what they do to tracked
words is entered in the history. A CALL is any call with any arguments: whoever draws one sees to
it that it touches no tracked word.
"""

from collections.abc import Callable, Mapping

import msgspec

from xpmem_emu.judge.history import ABSENT, FOREVER, History, Wipe
from xpmem_emu.kernel import calls, device_calls
from xpmem_emu.kernel.breaking import BreakingCall
from xpmem_emu.kernel.call import op_of
from xpmem_emu.kernel.calls import WITH_BULK, AnyCall, Call
from xpmem_emu.kernel.interface import Done, Failed
from xpmem_emu.sim.operations.accesses import WORD_SIZE, Accesses, Begin, address_for
from xpmem_emu.sim.operations.everyday import named
from xpmem_emu.sim.operations.registry import (
    UNTRACKED,
    WORD_OFFSETS,
    Region,
    Registry,
    TaskKey,
    planned_address,
)
from xpmem_emu.sim.plan import Op, Operation, RegionKind
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.units import PAGE_SIZE

_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.decode
_CALLS: dict[str, type[Call]] = {op_of(kind): kind for kind in (AnyCall | BreakingCall).__args__}


class SpecialOperations:
    """What a stage does when it is not everyday."""

    def __init__(
        self,
        cast: Registry,
        history: History,
        accesses: Accesses,
        begin: Begin,
        clock: Callable[[], int],
        reach: Callable[[str], None],
    ) -> None:
        """`clock` gives the number of the present step; `reach` is told of situations."""
        self._reach = reach
        self._cast = cast
        self._history = history
        self._accesses = accesses
        self._begin = begin
        self._clock = clock

    def operations(self) -> "Mapping[Op, Callable[[Operation, TaskKey], None]]":
        """What does which operation."""
        return {
            Op.EXEC: self._exec,
            Op.MOVE: self._move,
            Op.PWRITE: self._pwrite,
            Op.PREAD: self._pread,
            Op.CALL: self._call,
            Op.DEVICE: self._device,
            Op.UNDEVICE: self._undevice,
        }

    def _exec(self, operation: Operation, actor: TaskKey) -> None:
        """Nothing that the task had mapped is there afterwards."""
        mine = [each for each in self._cast.regions.values() if each.actor == actor]
        begin = self._clock() + 1
        self._begin(
            actor,
            calls.Exec(actor.pid),
            b"",
            lambda ticket: self._gone(
                ticket, [(region, 0, region.pages) for region in mine], begin
            ),
        )

    def _move(self, operation: Operation, actor: TaskKey) -> None:
        """Pages go to another address, where they have no number."""
        region = self._cast.regions.get(operation.region)
        if region is None or region.actor != actor:
            return
        start = region.address + operation.page * PAGE_SIZE
        length = operation.pages * PAGE_SIZE
        flags = calls.MREMAP_MAYMOVE | calls.MREMAP_FIXED
        remap = calls.Mremap(actor.pid, start, length, length, flags, planned_address(operation))
        begin = self._clock() + 1
        self._begin(
            actor,
            remap,
            b"",
            lambda ticket: self._gone(ticket, [(region, operation.page, operation.pages)], begin),
        )

    def _gone(self, ticket: Ticket, parts: list[tuple[Region, int, int]], begin: int) -> None:
        if isinstance(ticket.outcome, Failed):
            return
        sure = isinstance(ticket.outcome, Done)
        end = self._clock() if sure else FOREVER
        for region, page, pages in parts:
            if region.number != UNTRACKED and region.number not in self._cast.twice:
                wipe = Wipe(region.number, page, pages, ABSENT, begin, end, sure)
                self._history.wipes.append(wipe)

    # -- devices ---------------------------------------------------------------------------

    def _device(self, operation: Operation, actor: TaskKey) -> None:
        """One for the pages of a place; a GRU context is for all of them."""
        views, regions = self._cast.views, self._cast.regions
        place = views.get(operation.attachment) or regions.get(operation.region)
        if place is None:
            return
        pid, address, length = actor.pid, place.address, place.pages * PAGE_SIZE
        if operation.detail == "gru":
            self._begin(actor, device_calls.GruAttach(pid))
        elif operation.detail == "mirror":
            self._begin(actor, device_calls.MirrorAttach(pid, address, length))
        else:
            slot = device_calls.GuestSlot(pid, address_for("guest", address), length, address)
            attach = device_calls.GuestAttach(pid, bool(operation.flags & 1))
            self._begin(actor, attach, b"", lambda ticket: self._begin(actor, slot))

    def _undevice(self, operation: Operation, actor: TaskKey) -> None:
        self._begin(actor, device_calls.DeviceDetach(actor.pid, operation.detail))

    # -- files -----------------------------------------------------------------------------

    def _pwrite(self, operation: Operation, actor: TaskKey) -> None:
        """A word of a file that is mapped shared, written by call."""
        region = self._cast.regions.get(operation.region)
        if region is not None and self._cast.write(region):
            offset = operation.page * PAGE_SIZE + WORD_OFFSETS[operation.word]
            call = calls.Pwrite(region.file, offset)
            self._accesses.write(actor, call, region, operation.page, operation.word)

    def _pread(self, operation: Operation, actor: TaskKey) -> None:
        region = self._cast.regions.get(operation.region)
        if region is not None and region.kind is RegionKind.FILE:
            offset = operation.page * PAGE_SIZE + WORD_OFFSETS[operation.word]
            call = calls.Pread(region.file, offset, WORD_SIZE)
            self._accesses.read(actor, call, region, operation.page, operation.word)

    # -- any call --------------------------------------------------------------------------

    def _call(self, operation: Operation, actor: TaskKey) -> None:
        """Any call that can be sent at all; the others are passed over, as a console does it."""
        kind = _CALLS[operation.detail]
        given = named(operation, actor, self._cast)
        fields = {name: given[name] for name in kind.__struct_fields__ if name in given}
        fields["op"] = operation.detail
        try:
            call = _decode(_encode(fields | operation.values), type=kind)
        except (OverflowError, msgspec.ValidationError):
            self._reach("argument_of_no_type")
            return
        bulk = bytes([operation.made % 251 + 1]) * operation.size
        self._begin(actor, call, bulk if kind in WITH_BULK else b"")
