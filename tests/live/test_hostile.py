"""A partition with the real kernel under a hundred thousand mutated frames, and its console."""

import random

import psutil
import pytest
import zmq

from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition
from xpmem_emu.codec import BadMessage
from xpmem_emu.xpc.frame import SEAL_SIZE, ChannelNumber, Header, decode_frame, encode_frame, seal
from xpmem_emu.xpc.messages import (
    Attach,
    Fault,
    Get,
    Heartbeat,
    Invalidate,
    OpenRequest,
    RecallEntry,
)

from .conftest import Home, real_spec
from .test_console import greet, mutate_and_send, raw_socket

pytestmark = pytest.mark.live

FRAMES = 100_000
CONSOLE_FRAMES = 20_000
MEBIBYTE = 1 << 20
PAYLOAD = 4 * MEBIBYTE
STALE = 3 << 16
"""An incarnation of a boot that is long over."""

SAMPLES = [
    encode_frame(Header(1, STALE, STALE, channel, 5), message)
    for channel, message in (
        (ChannelNumber.MEM, Fault(1 << 40, 3, 0, 32)),
        (ChannelNumber.MEM, Get(1 << 20, 1 << 21, 2, 0, [0, 100], False)),
        (ChannelNumber.MEM, Attach(1 << 20, 7, 0, 4096)),
        (ChannelNumber.MEM, Invalidate([RecallEntry(1 << 20, 9, [(0, 4), (9, 2)], "gone")])),
        (ChannelNumber.ADMIN, OpenRequest(0, 128, 16)),
        (ChannelNumber.ADMIN, Heartbeat(17, False, 3, True)),
    )
]


def mutated(dice: random.Random) -> list[bytes]:
    """A message with some bytes changed, cut off, or with parts too many; most of them sealed
    again, so that they come further than the check against damage."""
    frame = bytearray(dice.choice(SAMPLES)[:-SEAL_SIZE])
    for _ in range(dice.randrange(1, 4)):
        frame[dice.randrange(len(frame))] = dice.randrange(256)
    if dice.random() < 0.2:
        del frame[dice.randrange(len(frame)) :]
    last = bytes(frame) if dice.random() < 0.2 else seal(bytes(frame))
    return [last] * dice.choice([1, 1, 1, 2, 3])


def is_bad(frames: list[bytes]) -> bool:
    """Whether nobody can have meant this: it does not decode, or comes from no peer."""
    try:
        return decode_frame(list(frames), PAYLOAD)[0].src not in (1,)
    except BadMessage:
        return True


def bad_frames(partition: Partition) -> int:
    return int(partition.status()["counters"]["bad_frames"])


def test_mutated_frames_are_counted_and_the_partition_stays_active(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "hostile")
    state = processes.up(real_spec("hostile", 2))
    process = psutil.Process(state.partitions[0].pid)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with connect("p0") as p0, connect("p1") as p1, context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(state.partitions[0].endpoint)
        task = p0.spawn()
        before_bad, expected = bad_frames(p0), 0
        for number in range(FRAMES):
            frames = mutated(dice)
            expected += is_bad(frames)
            socket.send_multipart(frames)
            if number == FRAMES // 10:
                before = process.memory_info().rss
        with raw_socket("hostile") as console:
            greet(console)
            mutate_and_send(console, dice, CONSOLE_FRAMES)
        assert p0.boot_facts().traffic["console_malformed"] > CONSOLE_FRAMES // 4
        while (counted := bad_frames(p0) - before_bad) < expected:
            assert process.is_running()
        assert counted == expected > FRAMES // 2
        assert process.memory_info().rss - before < 20 * MEBIBYTE
        for partition, peer in ((p0, "1"), (p1, "0")):
            assert partition.status()["peers"][peer]["state"] == "ACTIVE"
        address = task.mmap(4096)
        task.store(address, b"alive")
        other = p1.spawn()
        at = other.xpmem_attach(other.xpmem_get(task.xpmem_make(address, 4096)), 0, 4096)
        assert other.load(at, 5) == b"alive"
