"""Faults as commands have them: read as they were typed, put up where they concern somebody, shown
in the names of the cluster. That there are no halves is the business of `cluster_injections`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from secrets import randbits
from typing import TYPE_CHECKING

import click

from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.output import OutputRow, whole
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.client import cluster_injections
from xpmem_emu.errors import errno_name
from xpmem_emu.inject.grammar import format_injection, parse_injection
from xpmem_emu.inject.injections import Injection, concerns

if TYPE_CHECKING:
    from xpmem_emu.client.blocking import Partition


def read_injection(session: CommandSession, text: str) -> Injection:
    """The fault that was typed. Raises click's UsageError, CommandFailed for a partition that the
    cluster has not."""
    try:
        return parse_injection(text, session.names.several)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def put_up(session: CommandSession, fault: Injection, seed: int | None) -> OutputRow:
    """Puts `fault` up at every partition concerned; what it is called, as a row. Raises
    CommandFailed and what a partition refuses."""
    chosen = drawn_seed() if seed is None else seed
    with ExitStack() as stack:
        partitions = dict(_reached(session, fault, stack))
        fault = cluster_injections.inject_everywhere(partitions, fault, chosen)
    return {
        "name": fault.name,
        "fault": format_injection(fault, session.names.called),
        "on": list(partitions),
        "seed": chosen,
    }


def _reached(
    session: CommandSession, fault: Injection, stack: ExitStack
) -> Iterator[tuple[str, "Partition"]]:
    """The partitions that must know of `fault`, connected: those that it names, or all that
    answer. Raises OSError for one named and silent."""
    wanted = concerns(fault)
    if wanted is None:
        yield from [
            (name, stack.enter_context(session.connect(name))) for name, _ in session.survey()
        ]
        return
    for name in map(session.names.called, wanted):
        yield name, stack.enter_context(session.connect(name))


def in_force(session: CommandSession, chosen: Sequence[str] = ()) -> list[dict[str, object]]:
    """The faults of all partitions that answer, one row each: hits and held messages summed."""
    rows = list(cluster_injections.injections_in_force(session.survey(chosen)).values())
    for row in rows:
        row["fault"] = format_injection(parse_injection(row["fault"]), session.names.called)
        if row["left_ns"] == -1:
            row["left_ns"] = None
    return rows


def heal_everywhere(session: CommandSession, names: Sequence[str]) -> list[str]:
    """Heals these faults wherever they are. Raises CommandFailed for one that is nowhere."""
    healed = cluster_injections.heal_injections(session.survey(), names)
    for name in names:
        if name not in healed:
            raise CommandFailed(f"no fault is named {name}", "xpmem-emu fault ls")
    return healed


def drawn_seed() -> int:
    """A seed for somebody who gave none."""
    return randbits(32)


def one_per_point(rows: Sequence[OutputRow]) -> list[OutputRow]:
    """The failpoints that there are, whoever has them, with the name of their errno."""
    points = {row["point"]: row for row in rows}
    return [
        {**row, "fails_with": errno_name(whole(row, "errno")) if row["errno"] else ""}
        for row in points.values()
    ]
