"""Attacks of clients that have a key and are let in."""

import errno
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from typing import get_args

import msgpack
import msgspec

from tests.hostile.decoders import example, mutated, seeds
from tests.hostile.ground import LOOKER, MEBIBYTE, PAGE, USER, Ground, Speaker
from xpmem_emu.client.dial import new_hello
from xpmem_emu.client.failures import TaskSignalled, XpmemError
from xpmem_emu.client.wire import BULK_MAX, CONSOLE_VERSION, FRAME_MAX, Ask
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.breaking import BreakingCall
from xpmem_emu.kernel.calls import AnyCall, Call

IN_FLIGHT = 64
ESCAPES = ("\x1b[2J", "a\nb", "\x1b]0;owned\x07", "\u202eelif", "x" * 1000, "%s%n", "\x00", "../..")


def _flood(ground: Ground, speakers: list[Speaker], count: int, call: Call) -> None:
    """Ask, with many requests in flight."""
    turn = cycle(speakers)
    for number in ground.times(count):
        next(turn).send(Ask.CALL, call)
        if number % IN_FLIGHT == 0:
            for one in speakers:
                one.drain()
    for one in speakers:
        one.drain(50)


def nested_heads(ground: Ground, count: int) -> None:
    """As much as one frame may have of nested or empty containers in the head of a request."""
    speaker = ground.speaker()
    head = msgpack.packb([CONSOLE_VERSION, 7, Ask.CALL])
    for number in ground.times(count):
        filling = (b"\x91", b"\x90", b"\x80")[number % 3] * (FRAME_MAX - 64)
        speaker.raw([b"\x94" + head[1:] + filling])
        speaker.drain()
    speaker.drain(200)


def promises(ground: Ground, count: int) -> None:
    """Small requests that promise 2^32 elements, keys or bytes."""
    speaker = ground.speaker()
    head = msgpack.packb([CONSOLE_VERSION, 7, Ask.CALL])
    for number in ground.times(count):
        promise = (b"\xdd", b"\xdf", b"\xc6", b"\xdb")[number % 4] + b"\xff" * 4
        speaker.raw([b"\x94" + head[1:] + promise])
        speaker.drain()
    speaker.drain(200)


def malformed(ground: Ground, count: int) -> None:
    """Requests of every kind, each with a part replaced, doubled or left out."""
    speaker, samples = ground.speaker(), [one for one in seeds("console") if one[:1] == b"\0"]
    harmless = [one for one in samples if b"\xa3bye" not in one and b"shutdown" not in one]
    for _ in ground.times(count):
        speaker.raw([mutated(ground.dice.choice(harmless), ground.dice.randrange)[1:]])
        speaker.drain()
    speaker.drain(200)


def long_bulk(ground: Ground, count: int) -> None:
    """More bulk than is taken, and messages of a thousand parts."""
    speaker = ground.speaker()
    pid, address = ground.task(speaker)
    for number in ground.times(count):
        if number % 2:
            speaker.send(Ask.CALL, calls.Store(pid=pid, address=address), bytes(BULK_MAX + 1))
        else:
            speaker.raw([b"x" * 100] * 1000)
        speaker.drain()
    speaker.drain(200)


def huge_frames(ground: Ground, count: int) -> None:
    """Heads of 16 MiB: each costs a connection."""
    for _ in ground.times(count):
        with suppress(XpmemError):
            speaker = ground.speaker()
            speaker.raw([bytes(16 * MEBIBYTE)])
            ground.counts.cut += speaker.cut()
            speaker.close()


def flood(ground: Ground, count: int) -> None:
    """Requests as fast as they can be sent, by one connection."""
    _flood(ground, [ground.speaker()], count, calls.Look(kind="tasks"))


def crowded_flood(ground: Ground, count: int) -> None:
    """The same by as many sessions as a key may have."""
    _flood(ground, ground.speakers(48), count, calls.Status())


def never_reads(ground: Ground, count: int) -> None:
    """Asks for as much as it may each time, or for all events, and reads no answer."""
    speaker = ground.speaker()
    pid, address = ground.task(speaker, BULK_MAX)
    speaker.ask(Ask.CALL, calls.Store(pid=pid, address=address), bytes(BULK_MAX))
    load = calls.Load(pid=pid, address=address, size=BULK_MAX)
    for number in ground.times(count):
        if number % 2:
            speaker.send(Ask.CALL, load)
        else:
            speaker.send(Ask.RECENT)


def deaf_subscribers(ground: Ground, count: int) -> None:
    """Subscribes to events sixteen times a session, makes many and reads none."""
    deaf = ground.speakers(8)
    for one in deaf:
        for _ in range(17):
            one.send(Ask.SUBSCRIBE)
    busy = ground.speaker()
    for _ in ground.times(count):
        pid = busy.call(calls.Spawn())
        busy.call(calls.Exit(pid=pid))


def storm(ground: Ground, count: int) -> None:
    """Connects, says hello, spawns, leaves without a word."""
    for _ in ground.times(count):
        with suppress(XpmemError):
            speaker = ground.speaker()
            speaker.send(Ask.CALL, calls.Spawn())
            speaker.close()


def sessions(ground: Ground, count: int) -> None:
    """One session after another until there may be no more, and hellos in the name of others."""
    speakers = ground.speakers(count)
    for one in speakers:
        one.send(Ask.HELLO, new_hello())
        one.send(Ask.HELLO, msgspec.structs.replace(new_hello(), boot=1 << 40))
        one.drain(5)
    ground.counts.refused += len(speakers) < count


def tasks(ground: Ground, count: int) -> None:
    """Tasks with the longest names, until the table is full."""
    speaker = ground.speaker()
    for _ in ground.times(count):
        speaker.send(Ask.CALL, calls.Spawn(name="n" * 128))
        speaker.drain()
    speaker.drain(200)


def _segments(
    ground: Ground, speaker: Speaker, pid: int, address: int, count: int
) -> Iterator[int]:
    """Segments of one task, all over the same memory."""
    speaker.ask(Ask.CALL, calls.Store(pid=pid, address=address), bytes(PAGE))
    for _ in ground.times(count):
        yield speaker.call(
            calls.XpmemMake(pid=pid, vaddr=address, size=MEBIBYTE, permit_value=0o666)
        )


def segments(ground: Ground, count: int) -> None:
    """As many segments as a task may have, all of the same pages; then it is killed."""
    speaker = ground.speaker()
    pid, address = ground.task(speaker)
    for _ in _segments(ground, speaker, pid, address, count):
        pass
    speaker.send(Ask.CALL, calls.Look(kind="segments"))
    speaker.call(calls.Kill(pid=pid))


def attachments(ground: Ground, count: int) -> None:
    """Many attachments by another partition of many segments, all touched; then the memory is
    protected, and both tasks are killed."""
    speaker, far = ground.speaker(), ground.client("p1").spawn()
    pid, address = ground.task(speaker)
    for segid in _segments(ground, speaker, pid, address, count):
        with suppress(XpmemError):
            far.load(far.xpmem_attach(far.xpmem_get(segid), 0, MEBIBYTE), 8)
    speaker.send(Ask.CALL, calls.Look(kind="attachments"))
    speaker.call(calls.Mprotect(pid=pid, address=address, length=MEBIBYTE, prot=1))
    speaker.call(calls.Kill(pid=pid))
    with suppress(XpmemError, TaskSignalled):
        far.kill()


def areas(ground: Ground, count: int) -> None:
    """A task with very many areas forks; then all are unmapped at once."""
    speaker = ground.speaker()
    pid, address = ground.task(speaker, 1 << 30)
    for number in ground.times(count):
        at = address + number * 2 * PAGE
        speaker.send(Ask.CALL, calls.Mprotect(pid=pid, address=at, length=PAGE, prot=1))
        if number % IN_FLIGHT == 0:
            speaker.drain()
    speaker.drain(200)
    child = speaker.call(calls.Fork(pid=pid))
    speaker.call(calls.Munmap(pid=pid, address=address, length=1 << 30))
    speaker.call(calls.Kill(pid=child))


def memory(ground: Ground, count: int) -> None:
    """Stores until memory and swap are full, by task after task."""
    speaker = ground.speaker()
    piece = bytes(MEBIBYTE)
    pid, address, at = 0, 0, 0
    for _ in ground.times(count):
        if not pid:
            (pid, address), at = ground.task(speaker, 1 << 40), 0
        call = calls.Store(pid=pid, address=address + at)
        answer = speaker.ask(Ask.CALL, call, piece)
        at += MEBIBYTE
        if answer is None or answer.kind != "done":
            pid = 0


def names(ground: Ground, count: int) -> None:
    """Escapes, ends of lines, patterns and very long text wherever a name or reason goes."""
    speaker = ground.speaker()
    for number in ground.times(count):
        bad = ESCAPES[number % len(ESCAPES)]
        bodies: list[tuple[str, object]] = [
            (Ask.CALL, {"op": "spawn", "name": bad}),
            (Ask.CALL, {"op": "xpmem_find", "name": bad}),
            (Ask.CALL, {"op": "kill", "pid": 1, "reason": bad}),
            (Ask.CALL, {"op": "describe", "what": bad}),
            (Ask.CALL, {"op": "look", "kind": bad}),
            (Ask.HELLO, {"session": "ab" * 8, "client": bad}),
            (bad[:60], None),
        ]
        for kind, body in bodies:
            speaker.send(kind, body)
        speaker.drain(5)


def extremes(ground: Ground, count: int) -> None:
    """Every call with numbers from the ends of their ranges, for a task of its own."""
    speaker = ground.speaker()
    pid, _ = ground.task(speaker)
    kinds = [kind for kind in get_args(AnyCall) if kind is not calls.Shutdown]
    edges = (0, 1, PAGE, 1 << 46, (1 << 63) - PAGE, (1 << 64) - PAGE, (1 << 64) - 1, -1, -(1 << 63))
    for number in ground.times(count):
        kind = kinds[number % len(kinds)]
        body = msgspec.to_builtins(example(kind))
        for key, value in body.items():
            if isinstance(value, int) and not isinstance(value, bool):
                body[key] = ground.dice.choice(edges)
        if "pid" in body:
            body["pid"] = pid
        answer = speaker.ask(Ask.CALL, body)
        if answer is None or (answer.kind == "failed" and answer.body["errno"] == errno.ESRCH):
            pid, _ = ground.task(speaker)


def huge_ranges(ground: Ground, count: int) -> None:
    """Calls over 64 TiB, and copies of terabytes between permits of its own."""
    speaker = ground.speaker()
    size = 1 << 46
    pid, address = ground.task(speaker, size)
    speaker.ask(Ask.CALL, calls.Store(pid=pid, address=address), bytes(MEBIBYTE))
    segid = speaker.call(calls.XpmemMake(pid=pid, vaddr=address, size=size, permit_value=0o666))
    apid = speaker.call(calls.XpmemGet(pid=pid, segid=segid))
    ranged: list[Call] = [
        calls.Mprotect(pid=pid, address=address, length=size, prot=1),
        calls.Mprotect(pid=pid, address=address, length=size, prot=3),
        calls.Madvise(pid=pid, address=address, length=size, advice=calls.MADV_PAGEOUT),
        calls.ZapPageRange(pid=pid, address=address, length=size),
        calls.Fork(pid=pid),
        calls.Load(pid=pid, address=address, size=1 << 26),
        calls.XpmemCopy(
            pid=pid,
            src_apid=apid,
            src_offset=0,
            dst_apid=apid,
            dst_offset=size // 2,
            size=size // 2,
        ),
    ]
    for number in ground.times(count):
        speaker.send(Ask.CALL, ranged[number % len(ranged)])
        speaker.drain(5)
    speaker.call(calls.Kill(pid=pid))


def sleepers(ground: Ground, count: int) -> None:
    """Calls that wait for a fork that never ends, by as many sessions as there may be."""
    holder = ground.speaker()
    pid, address = ground.task(holder)
    segid = holder.call(calls.XpmemMake(pid=pid, vaddr=address, size=MEBIBYTE, permit_value=0o666))
    many = ground.speakers(32)
    waiting = []
    for one in many:
        task = one.call(calls.Spawn())
        one.call(calls.XpmemOpen(pid=task))
        apid = one.call(calls.XpmemGet(pid=task, segid=segid))
        waiting.append(
            calls.Load(
                pid=task,
                size=8,
                address=one.call(calls.XpmemAttach(pid=task, apid=apid, offset=0, size=MEBIBYTE)),
            )
        )
    holder.call(calls.XpmemForkBegin(pid=pid))
    turn = cycle(list(zip(many, waiting, strict=True)))
    for _ in ground.times(count):
        one, load = next(turn)
        one.send(Ask.CALL, load)
    for one in many:
        one.drain(20)
    holder.call(calls.XpmemForkEnd(pid=pid))


def of_others(ground: Ground, count: int) -> None:
    """Calls for tasks, segments, permits and sessions of others, by guessing."""
    speaker = ground.speaker()
    pid, _ = ground.task(speaker)
    for number in ground.times(count):
        guess = number % 64
        for call in (
            calls.Kill(pid=guess),
            calls.Load(pid=guess, address=1 << 40, size=8),
            calls.XpmemRemove(pid=pid, segid=guess << 20),
            calls.XpmemDetach(pid=guess, vaddr=0),
            calls.XpmemRelease(pid=pid, apid=guess << 20),
            calls.Setuid(pid=pid, uid=0),
            calls.Spawn(uid=0, cap_ipc_owner=True),
            calls.Creat(file="f"),
        ):
            speaker.send(Ask.CALL, call)
        speaker.drain()
    speaker.drain(200)


def beyond_rights(ground: Ground, count: int) -> None:
    """Everything there is, with a key that may only look."""
    speaker = ground.speaker(LOOKER)
    every = [example(kind) for kind in get_args(AnyCall) + get_args(BreakingCall)]
    for number in ground.times(count):
        speaker.send(Ask.CALL, every[number % len(every)])
        speaker.send(Ask.FAULTS, {"do": "add", "text": "link *->* cut"})
        speaker.drain()
    speaker.drain(200)


def expensive_looks(ground: Ground, count: int) -> None:
    """The tables that cost most, by a key that may only look, while another has filled them."""
    filler = ground.speaker(USER)
    for _ in _segments(ground, filler, *ground.task(filler), 500):
        pass
    looker = ground.speaker(LOOKER)
    for number in ground.times(count):
        kind = ("segments", "tasks", "pins", "permits")[number % 4]
        looker.send(Ask.CALL, calls.Audit() if number % 5 == 0 else calls.Look(kind=kind))
        looker.send(Ask.RECENT)
        looker.drain()
    looker.drain(200)
