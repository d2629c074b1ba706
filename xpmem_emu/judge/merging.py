"""Event streams in files, read and made one: the stream of everything that happened.

Partitions of one machine stamp their events with its monotonic clock, so by time the streams make
one; where a fault bent a clock, causality decides: a message is never taken before it was sent.
All events of one step have the time at which it began, and whatever others learn of a step, they
learn from messages that it sends at its end: step after step is an order that could have been.

A process that is killed while it writes leaves half a line; that is the end of its boot. Any other
damage - a line that is no event, a gap in the numbers - is refused: half a stream proves nothing.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from xpmem_emu.errors import KernelError
from xpmem_emu.judge.records import read_record
from xpmem_emu.kernel import events as kernel
from xpmem_emu.trace import Record
from xpmem_emu.xpc import events as xpc
from xpmem_emu.xpc.remote import EPOCH_BITS


def read_records(path: Path) -> Iterator[Record | None]:
    """The records of one file, None where a boot ends in half a line. KernelError EBADMSG."""
    damage: KernelError | None = None
    last = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = read_record(line)
            except msgspec.MsgspecError as error:
                if damage is not None:
                    raise damage from None
                damage = _damage(path, number, str(error))
                continue
            if isinstance(record.event, kernel.KernelBoot):
                if damage is not None:
                    yield None
                damage, last = None, 0
            if damage is not None:
                raise damage
            if record.sequence:
                if record.sequence != last + 1:
                    raise _damage(path, number, f"record {record.sequence} follows {last}")
                last = record.sequence
            yield record
    if damage is not None:
        yield None


def _damage(path: Path, number: int, why: str) -> KernelError:
    return KernelError(errno.EBADMSG, f"{path}, line {number}: {why}", "a whole event log")


class MergedStep(NamedTuple):
    """Events that one partition emitted in one step, or in several with no message between."""

    partid: int
    time_ns: int
    records: list[Record]
    killed: bool = False
    """It is the last of a boot that was killed, perhaps in the middle of it."""

    @property
    def boot(self) -> int:
        """The boot that begins here, 0 when none does."""
        event = self.records[0].event
        return event.boot if isinstance(event, kernel.KernelBoot) else 0


def _steps(records: Iterable[Record | None]) -> Iterator[MergedStep]:
    step: list[Record] = []
    for record in records:
        booted = record is None or isinstance(record.event, kernel.KernelBoot)
        if step and (booted or _begins(record, step)):
            yield MergedStep(step[0].partid, step[0].time_ns, step, booted and not _stopped(step))
            step = []
        if record is not None:
            step.append(record)
    if step:
        yield MergedStep(step[0].partid, step[0].time_ns, step)


def _begins(record: Record | None, step: list[Record]) -> bool:
    assert record is not None
    return isinstance(record.event, xpc.Received) or record.time_ns != step[0].time_ns


def _stopped(step: list[Record]) -> bool:
    return isinstance(step[-1].event, kernel.KernelHalt | kernel.KernelPanic)


def by_partition(files: Iterable[Path]) -> dict[int, Iterator[MergedStep]]:
    """The steps of each partition, its files one after the other in the order of their times."""
    found: dict[int, list[tuple[int, Path]]] = {}
    for path in files:
        first = next(read_records(path), None)
        if isinstance(first, Record):
            found.setdefault(first.partid, []).append((first.time_ns, path))
    return {
        partid: _steps(record for _, path in sorted(parts) for record in read_records(path))
        for partid, parts in found.items()
    }


# -- one stream of all -------------------------------------------------------------------------


class Merge:
    """Steps of all partitions in an order that could have been: by time, messages after their
    sending."""

    def __init__(self, streams: Mapping[int, Iterator[MergedStep]]) -> None:
        self._streams = streams
        self._heads: dict[int, MergedStep] = {}
        self._boots: dict[int, int] = {}
        self._sent: dict[tuple[int, int], tuple[int, set[tuple[int, str, int]]]] = {}
        """(sender, receiver) -> the sender's incarnation, and what it sent as that."""

    def __iter__(self) -> Iterator[MergedStep]:
        for partid in self._streams:
            self._advance(partid)
        while self._heads:
            order = sorted(self._heads, key=lambda partid: (self._heads[partid].time_ns, partid))
            ready = (partid for partid in order if not self._too_early(self._heads[partid]))
            step = self._heads[next(ready, order[0])]
            self._note(step)
            self._advance(step.partid)
            yield step

    def _advance(self, partid: int) -> None:
        step = next(self._streams[partid], None)
        if step is None:
            self._heads.pop(partid, None)
        else:
            self._heads[partid] = step

    def _note(self, step: MergedStep) -> None:
        self._boots[step.partid] = step.boot or self._boots.get(step.partid, 0)
        for record in step.records:
            event = record.event
            if isinstance(event, xpc.Sent):
                pair = (step.partid, event.peer)
                if self._sent.get(pair, (-1,))[0] != event.incarnation:
                    self._sent[pair] = event.incarnation, set()
                self._sent[pair][1].add((event.channel, event.kind, event.number))

    def _too_early(self, step: MergedStep) -> bool:
        """Whether the step takes a message that its sender is still to send."""
        event = step.records[0].event
        if not isinstance(event, xpc.Received):
            return False
        head = self._heads.get(event.peer)
        if head is None:
            return False
        boot = event.incarnation >> EPOCH_BITS
        if max(head.boot, self._boots.get(event.peer, 0)) > boot:
            return False  # the boot that sent it is over
        incarnation, sent = self._sent.get((event.peer, step.partid), (-1, set()))
        if incarnation == event.incarnation:
            return (event.channel, event.kind, event.number) not in sent
        return incarnation < event.incarnation
