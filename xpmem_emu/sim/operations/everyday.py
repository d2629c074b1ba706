"""Everyday operations as calls: which call each one is, and what its fields are.

A field is found by its name in the description of the call (`kernel.calls`), so nothing of that is
said here again.
"""

from collections.abc import Mapping
from typing import Any

from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.sim.operations.registry import Registry, TaskKey, planned_address
from xpmem_emu.sim.plan import Op, Operation
from xpmem_emu.units import PAGE_SIZE

ON_REGION: Mapping[Op, type[Call]] = {
    Op.MUNMAP: calls.Munmap,
    Op.PROTECT: calls.Mprotect,
    Op.DONTNEED: calls.Madvise,
    Op.PUNCH: calls.Madvise,
    Op.PAGEOUT: calls.Madvise,
    Op.MIGRATE: calls.Migrate,
    Op.TRUNCATE: calls.Truncate,
    Op.WRITEBACK: calls.Writeback,
}
"""Those that make pages of a region move, go or change."""
ON_TASK: Mapping[Op, type[Call]] = {
    Op.FORK: calls.Fork,
    Op.EXIT: calls.Exit,
    Op.KILL: calls.Kill,
    Op.RECLAIM: calls.Reclaim,
    Op.OPEN: calls.XpmemOpen,
    Op.CLOSE: calls.XpmemClose,
    Op.MAKE: calls.XpmemMake,
    Op.REMOVE: calls.XpmemRemove,
    Op.GET: calls.XpmemGet,
    Op.RELEASE: calls.XpmemRelease,
    Op.ATTACH: calls.XpmemAttach,
    Op.DETACH: calls.XpmemDetach,
}
_OPTIONAL = {Op.MAKE: ("permit_value",), Op.GET: ("flags",), Op.ATTACH: ("vaddr",)}
"""Fields that are given although the call could do without."""
_PROT = {"none": 0, "read": 1, "write": 3}
_ADVICE = {
    Op.DONTNEED: calls.MADV_DONTNEED,
    Op.PUNCH: calls.MADV_REMOVE,
    Op.PAGEOUT: calls.MADV_PAGEOUT,
}


def call_of(operation: Operation, actor: TaskKey, cast: Registry) -> Call | None:
    """The call that an operation is; None when something that it needs does not exist."""
    op, offset = operation.op, operation.page * PAGE_SIZE
    kind = ON_TASK.get(op) or ON_REGION[op]
    values = named(operation, actor, cast) | {
        "pages": operation.pages,
        "prot": _PROT.get(operation.detail),
        "advice": _ADVICE.get(op),
        "permit_value": operation.mode,
        "flags": operation.flags,
        "offset": offset,
    }
    region = cast.regions.get(operation.region)
    if region is not None and region.file:
        values["file"] = region.file
    if op is Op.ATTACH:
        values["vaddr"] = planned_address(operation)
    if op is Op.TRUNCATE:
        values["size"] = offset
    required = kind.__struct_fields__[: len(kind.__struct_fields__) - len(kind.__struct_defaults__)]
    names = {*required, *_OPTIONAL.get(op, ())}
    return kind(**{name: values[name] for name in names}) if names <= values.keys() else None


def named(operation: Operation, actor: TaskKey, cast: Registry) -> dict[str, Any]:
    """The fields that an operation gives by naming things."""
    values: dict[str, Any] = {"pid": actor.pid}
    place = cast.views.get(operation.attachment) or cast.regions.get(operation.region)
    if place is not None:
        address = place.address + operation.page * PAGE_SIZE + operation.offset
        values |= {"address": address, "vaddr": address}
    if operation.pages:
        length = operation.pages * PAGE_SIZE
        values |= dict.fromkeys(("length", "size", "old_length", "new_length"), length)
    if permit := cast.permits.get(operation.permit):
        values |= {"apid": permit.apid, "src_apid": permit.apid, "segid": permit.segment.segid}
    if segment := cast.segments.get(operation.segment):
        values["segid"] = segment.segid
    if permit := cast.permits.get(operation.into):
        values["dst_apid"] = permit.apid
    return values
