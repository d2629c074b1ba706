"""Faults over several partitions: one name, put up everywhere or nowhere, listed as one.

What one partition refuses is taken back from the others, so there are no halves. Partitions come
with their names, in the order in which they are told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from xpmem_emu.inject.grammar import format_injection, renamed, stem
from xpmem_emu.inject.injections import Injection

if TYPE_CHECKING:
    from xpmem_emu.client.blocking import Partition
    from xpmem_emu.kernel.call import TableRow

    Named = Iterable[tuple[str, Partition]]


def inject_everywhere(
    partitions: Mapping[str, Partition], fault: Injection, seed: int
) -> Injection:
    """Put `fault` up at all of them; without a name of its own it gets the first free one of its
    kind. Raises what one of them refuses, and then it is nowhere."""
    if not fault.name:
        fault = renamed(fault, _free_name(stem(fault), partitions))
    text = format_injection(fault)
    done: list[Partition] = []
    try:
        for partition in partitions.values():
            try:
                partition.fault_add(text, seed)
            except TimeoutError:
                done.append(partition)  # it may hear of it yet
                raise
            done.append(partition)
    except OSError:
        for partition in done:
            with suppress(OSError):
                partition.fault_remove(fault.name)
        raise
    return fault


def injections_in_force(partitions: Named) -> dict[str, TableRow]:
    """The faults of all of them by name: hits and held messages summed, `on` says where."""
    merged: dict[str, TableRow] = {}
    for where, partition in partitions:
        for row in partition.fault_list():
            known = merged.setdefault(row["name"], {**row, "hits": 0, "held": 0, "on": []})
            known["hits"] += row["hits"]
            known["held"] += row["held"]
            known["on"].append(where)
    return merged


def heal_injections(partitions: Named, names: Collection[str]) -> list[str]:
    """Heal faults wherever they are. Result: the names of those that were anywhere."""
    healed: dict[str, None] = {}
    for partition, name in _where(partitions, names):
        partition.fault_remove(name)
        healed[name] = None
    return list(healed)


def release_injections(partitions: Named, names: Collection[str]) -> None:
    """Let go the messages that faults hold back, wherever they are."""
    for partition, name in _where(partitions, names):
        partition.fault_release(name)


def _where(partitions: Named, names: Collection[str]) -> Iterable[tuple[Partition, str]]:
    for _, partition in partitions:
        for row in partition.fault_list():
            if row["name"] in names:
                yield partition, row["name"]


def _free_name(kind: str, partitions: Mapping[str, Partition]) -> str:
    taken = injections_in_force(partitions.items())
    number = 1
    while f"{kind}-{number}" in taken:
        number += 1
    return f"{kind}-{number}"
