"""Calls that look and change nothing: tables, one object, one walk, the counts.

The rows are plain mappings with the same keys in every row of a kind; numbers stay numbers, the
command line decides how they look.
"""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel import rows
from xpmem_emu.kernel.audit import audit_kernel
from xpmem_emu.kernel.calls import Audit, Describe, Look, Pagetable, Status
from xpmem_emu.kernel.rows import Row
from xpmem_emu.kernel.tasks import Task

if TYPE_CHECKING:
    from xpmem_emu.kernel.calls import Call
    from xpmem_emu.kernel.dispatch import Handler, Returned
    from xpmem_emu.kernel.kernel import Kernel

_TABLES: "dict[str, Callable[[Kernel], list[Row]]]" = {
    "segments": rows.segment_rows,
    "attachments": rows.attachments,
    "permits": rows.permits,
    "faults": rows.faults,
    "partitions": rows.partition_rows,
    "channels": rows.channels,
    "pins": rows.pins,
    "tasks": rows.tasks,
    "files": rows.file_rows,
}


class LookCalls:
    """look, describe, pagetable, status, audit."""

    def __init__(self, kernel: "Kernel") -> None:
        self._kernel = kernel

    def handlers(self) -> "dict[type[Call], Handler]":
        """What serves which call."""
        return {
            Look: self._look,
            Describe: self._describe,
            Pagetable: self._pagetable,
            Status: self._status,
            Audit: self._audit,
        }

    async def _look(self, call: Look, task: None, bulk: Buffer) -> "Returned":
        table = _TABLES.get(call.kind)
        if table is None:
            raise KernelError(errno.EINVAL, f"no table {call.kind!r}", ", ".join(_TABLES))
        return table(self._kernel), b""

    async def _describe(self, call: Describe, task: None, bulk: Buffer) -> "Returned":
        if call.what.startswith("p") and call.what[1:].isdigit():
            found = _with(rows.partition_rows(self._kernel), "peer", int(call.what[1:]))
            return self._one("partition", call.what, found), b""
        try:
            number = int(call.what, 0)
        except ValueError:
            raise KernelError(
                errno.EINVAL, f"{call.what!r} is not an id", "a segid, apid or pid, or p3"
            ) from None
        for kind, key in (("segments", "segid"), ("permits", "apid"), ("tasks", "pid")):
            found = _with(_TABLES[kind](self._kernel), key, number)
            if found:
                return self._with_relatives(kind, key, number, found), b""
        return self._one("object", call.what, []), b""

    def _with_relatives(self, kind: str, key: str, number: int, found: list[Row]) -> Row:
        described = self._one(kind, str(number), found)
        for table in ("segments", "permits", "attachments", "faults"):
            if table != kind:
                rows_of = _TABLES[table](self._kernel)
                related = [row for row in rows_of if row.get(key) == number]
                if related:
                    described[table] = related
        return described

    def _one(self, kind: str, name: str, found: list[Row]) -> Row:
        if not found:
            raise KernelError(errno.ENOENT, f"no {kind} {name} on p{self._kernel.partid}")
        return {"kind": kind.removesuffix("s"), **found[0]}

    async def _pagetable(self, call: Pagetable, task: Task, bulk: Buffer) -> "Returned":
        return rows.walk(task, call.address), b""

    async def _status(self, call: Status, task: None, bulk: Buffer) -> "Returned":
        return rows.status_row(self._kernel), b""

    async def _audit(self, call: Audit, task: None, bulk: Buffer) -> "Returned":
        return audit_kernel(self._kernel), b""


def _with(table: list[Row], key: str, value: int) -> list[Row]:
    return [row for row in table if row[key] == value]
