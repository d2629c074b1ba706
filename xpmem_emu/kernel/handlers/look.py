"""Calls that look and change nothing: tables, one object, one walk, the counts.

The rows are plain mappings with the same keys in every row of a kind; numbers stay numbers, the
command line decides how they look.
"""

import errno
from collections.abc import Callable

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel import rows
from xpmem_emu.kernel.audit import audit_kernel
from xpmem_emu.kernel.calls import Audit, Describe, Look, Pagetable, Status
from xpmem_emu.kernel.kernel import Handlers, Kernel, Returned
from xpmem_emu.kernel.rows import Row
from xpmem_emu.kernel.tasks import Task

_TABLES: dict[str, Callable[[Kernel], list[Row]]] = {
    "segments": rows.segment_rows,
    "attachments": rows.attachments,
    "permits": rows.permits,
    "faults": rows.faults,
    "partitions": rows.partition_rows,
    "channels": rows.channels,
    "pins": rows.pins,
    "tasks": rows.tasks,
    "files": rows.file_rows,
    "devices": rows.device_rows,
}


async def _look(kernel: Kernel, call: Look, task: None, bulk: Buffer) -> Returned:
    table = _TABLES.get(call.kind)
    if table is None:
        raise KernelError(errno.EINVAL, f"no table {call.kind!r}", ", ".join(_TABLES))
    return table(kernel), b""


async def _describe(kernel: Kernel, call: Describe, task: None, bulk: Buffer) -> Returned:
    if call.what.startswith("p") and call.what[1:].isdigit():
        found = _with(rows.partition_rows(kernel), "peer", int(call.what[1:]))
        return _one(kernel, "partition", call.what, found), b""
    try:
        number = int(call.what, 0)
    except ValueError:
        raise KernelError(
            errno.EINVAL, f"{call.what!r} is not an id", "a segid, apid or pid, or p3"
        ) from None
    for kind, key in (("segments", "segid"), ("permits", "apid"), ("tasks", "pid")):
        found = _with(_TABLES[kind](kernel), key, number)
        if found:
            return _with_relatives(kernel, kind, key, number, found), b""
    return _one(kernel, "object", call.what, []), b""


def _with_relatives(kernel: Kernel, kind: str, key: str, number: int, found: list[Row]) -> Row:
    described = _one(kernel, kind, str(number), found)
    for table in ("segments", "permits", "attachments", "faults"):
        if table != kind:
            rows_of = _TABLES[table](kernel)
            related = [row for row in rows_of if row.get(key) == number]
            if related:
                described[table] = related
    return described


def _one(kernel: Kernel, kind: str, name: str, found: list[Row]) -> Row:
    if not found:
        raise KernelError(errno.ENOENT, f"no {kind} {name} on p{kernel.partid}")
    return {"kind": kind.removesuffix("s"), **found[0]}


async def _pagetable(kernel: Kernel, call: Pagetable, task: Task, bulk: Buffer) -> Returned:
    return rows.walk(task, call.address), b""


async def _status(kernel: Kernel, call: Status, task: None, bulk: Buffer) -> Returned:
    return rows.status_row(kernel), b""


async def _audit(kernel: Kernel, call: Audit, task: None, bulk: Buffer) -> Returned:
    return audit_kernel(kernel), b""


def _with(table: list[Row], key: str, value: int) -> list[Row]:
    return [row for row in table if row[key] == value]


HANDLERS: Handlers = {
    Look: _look,
    Describe: _describe,
    Pagetable: _pagetable,
    Status: _status,
    Audit: _audit,
}
