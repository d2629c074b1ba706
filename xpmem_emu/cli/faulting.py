"""Faults over several partitions: one name, put up everywhere or nowhere, listed as one.

A fault is given to the partitions concerned: a rule to those that may send what it hits. What one
of them refuses is taken back from the others, so there are no halves.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from secrets import randbits
from typing import TYPE_CHECKING

import click

from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.output import OutputRow, whole
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.errors import errno_name
from xpmem_emu.inject.grammar import format_injection, parse_injection, renamed, stem
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
        fault = renamed(fault, _free_name(fault, partitions))
        text, done = format_injection(fault), list["Partition"]()
        try:
            for partition in partitions.values():
                partition.fault_add(text, chosen)
                done.append(partition)
        except OSError:
            for partition in done:
                with suppress(OSError):
                    partition.fault_remove(fault.name)
            raise
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
    merged: dict[str, dict[str, object]] = {}
    for where, partition in session.survey(chosen):
        for row in partition.fault_list():
            known = merged.setdefault(str(row["name"]), {**row, "hits": 0, "held": 0, "on": []})
            for key in ("hits", "held"):
                known[key] = _whole(known[key]) + _whole(row[key])
            known["on"] = [*_names(known["on"]), where]
    for row in merged.values():
        row["fault"] = format_injection(parse_injection(str(row["fault"])), session.names.called)
        if row["left_ns"] == -1:
            row["left_ns"] = None
    return list(merged.values())


def heal_everywhere(session: CommandSession, names: Sequence[str]) -> list[str]:
    """Heals these faults wherever they are. Raises CommandFailed for one that is nowhere."""
    healed: list[str] = []
    for _, partition in session.survey():
        for row in partition.fault_list():
            if row["name"] in names:
                partition.fault_remove(row["name"])
                healed.append(str(row["name"]))
    for name in names:
        if name not in healed:
            raise CommandFailed(f"no fault is named {name}", "xpmem-emu fault ls")
    return list(dict.fromkeys(healed))


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


def _free_name(fault: Injection, partitions: Mapping[str, "Partition"]) -> str:
    """The name that was given, or the first free one of its kind."""
    if fault.name:
        return fault.name
    taken = {row["name"] for each in partitions.values() for row in each.fault_list()}
    number = 1
    while f"{stem(fault)}-{number}" in taken:
        number += 1
    return f"{stem(fault)}-{number}"


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value


def _names(value: object) -> list[str]:
    assert isinstance(value, list)
    return value
