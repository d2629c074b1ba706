"""Rows of a kind of all partitions at once, with the names that commands take.

Rows come from each partition as it knows them; added are the partition's name and, where a row is
a task or memory, the name or the handle that other commands take.
"""

from collections.abc import Sequence

from xpmem_emu.cli.output import OutputRow, whole
from xpmem_emu.cli.parameters import Handle, TaskRef
from xpmem_emu.cli.session import CommandSession

PLACES = {"attachments": "address", "segments": "vaddr"}
"""Rows about memory: which of their fields says where it begins."""


def rows_of(session: CommandSession, kind: str, where: Sequence[str] | None) -> list[OutputRow]:
    """The rows of `kind` of the partitions `where`, or of all. Faults are those that were put up;
    what a kernel calls its faults, those of pages, are `pagefaults` here."""
    if kind == "faults":
        from xpmem_emu.cli import faulting

        return list(faulting.in_force(session, where or ()))
    rows: list[OutputRow] = []
    for name, partition in session.survey(where or ()):
        for row in partition.look("faults" if kind == "pagefaults" else kind):
            rows.append({"partition": name} | row | _named(name, partition.facts.boot, kind, row))
    return rows


def _named(where: str, boot: int, kind: str, row: OutputRow) -> dict[str, object]:
    """The name that commands take for what the row is about, where it has one."""
    if kind == "tasks":
        return {"task": str(TaskRef(where, boot, whole(row, "pid")))}
    if kind not in PLACES:
        return {}
    task = TaskRef(where, boot, whole(row, "pid"))
    return {"handle": str(Handle(task, whole(row, PLACES[kind])))}
