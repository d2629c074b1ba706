"""Faults on real partition processes: the same texts as in the simulator."""

import errno
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition, Task
from xpmem_emu.client.failures import SigBus, XpmemError

from .conftest import LOSSY, Home, real_spec

pytestmark = pytest.mark.live

PAGE = 4096
Pair = tuple[Partition, Partition]


@pytest.fixture
def pair(home: Home) -> Iterator[Pair]:
    processes.up(real_spec("f", 2, image=LOSSY))
    with connect("p0", "f") as p0, connect("p1", "f") as p1:
        yield p0, p1


def shared(pair: Pair) -> tuple[Task, int, Task, int]:
    """An exporter with a page, and an importer that has attached it."""
    exporter, importer = pair[0].spawn(), pair[1].spawn()
    base = exporter.mmap(PAGE)
    exporter.store(base, b"kept")
    segid = exporter.xpmem_make(base, PAGE)
    return exporter, base, importer, importer.xpmem_attach(importer.xpmem_get(segid), 0, PAGE)


def wait_for(partition: Partition, state: str) -> None:
    """Returns when the other partition has that state there."""
    with partition.events() as events:
        peer = str(1 - partition.facts.partid)
        if partition.status()["peers"][peer]["state"] != state:
            next(one for one in events if one.get("state") == state)


def test_a_rule_hits_and_begins_and_ends_in_the_event_stream(pair: Pair) -> None:
    p0, _ = pair
    name = p0.fault_add("link p0->p1 drop --match type=FAULT_REPLY --times 1")
    _, _, importer, at = shared(pair)
    assert importer.load(at, 4) == b"kept"
    (row,) = p0.fault_list()
    assert (row["name"], row["hits"]) == (name, 1)
    assert p0.fault_reset() == [name]
    names = [event["event"] for event in p0.recent_events()]
    assert [each for each in names if each.startswith("fabric:")] == [
        "fabric:begin",
        "fabric:hit",
        "fabric:end",
    ]


def test_sharing_survives_what_a_network_may_do(pair: Pair) -> None:
    exporter, base, importer, at = shared(pair)
    for text in (
        "duplicate",
        "delay 1ms --jitter 3ms",
        "reorder 1 --prob 0.3",
        "latency 2ms",
        "bandwidth 10M",
        "capacity 64",
        "drop --prob 0.1 --match type=FAULT_REPLY",
        "loss 0.1 --match type=FAULT_REPLY",
        "replay",
        "flap 5ms --up 50ms",
    ):
        for partition in pair:
            partition.fault_add(f"{text} --name now", seed=5)
        for number in range(3):
            data = f"{text} {number}".encode()
            exporter.store(base, data)
            exporter.migrate(base, PAGE)
            assert importer.load(at, len(data)) == data, text
        for partition in pair:
            partition.fault_remove("now")


def test_damaged_messages_are_dropped_and_panic_nobody(pair: Pair) -> None:
    p0, p1 = pair
    _, _, importer, at = shared(pair)
    p0.fault_add("corrupt --match type=FAULT_REPLY --times 1", seed=1)
    with suppress(SigBus):
        importer.load(at, 4)
    assert p0.fault_list()[0]["hits"] == 1
    assert [p.status()["partid"] for p in (p0, p1)] == [0, 1]


def test_a_late_message_is_late(pair: Pair) -> None:
    _, _, importer, at = shared(pair)
    pair[0].fault_add("delay 150ms --match type=FAULT_REPLY")
    before = time.monotonic()
    assert importer.load(at, 4) == b"kept"
    assert time.monotonic() - before >= 0.15


def test_what_is_held_arrives_when_it_is_released_or_healed(pair: Pair) -> None:
    _, _, importer, at = shared(pair)
    before = time.monotonic()
    name = pair[0].fault_add("hold --match type=FAULT_REPLY --for 200ms")
    assert importer.load(at, 4) == b"kept"
    assert time.monotonic() - before >= 0.1
    with pytest.raises(XpmemError) as caught:
        pair[0].fault_release(name)
    assert caught.value.errno == errno.ENOENT


def test_a_one_way_cut_loses_the_peer_which_comes_back_by_itself(pair: Pair) -> None:
    p0, p1 = pair
    _, _, importer, at = shared(pair)
    importer.load(at, 4)
    cut = p0.fault_add("link p0->p1 cut")
    wait_for(p1, "INACTIVE")
    with pytest.raises(SigBus):
        importer.load(at, 4)
    p0.fault_remove(cut)
    wait_for(p1, "ACTIVE")


def test_a_jump_of_the_clock_harms_nobody_and_a_frozen_one_is_missed(pair: Pair) -> None:
    p0, p1 = pair
    _, _, importer, at = shared(pair)
    p1.fault_add("clock p1 jump 1ms")
    assert importer.load(at, 4) == b"kept"
    frozen = p1.fault_add("clock p1 freeze")
    wait_for(p0, "INACTIVE")
    p1.fault_remove(frozen)
    wait_for(p0, "ACTIVE")
    assert p1.fault_list()[0]["kind"] == "jump"


def test_a_throttled_and_a_stalled_partition_lose_nothing(pair: Pair) -> None:
    _, _, importer, at = shared(pair)
    pair[0].fault_add("throttle p0 5ms")
    assert importer.load(at, 4) == b"kept"
    assert pair[0].fault_reset() == ["throttle-1"]
    before = time.monotonic()
    pair[0].fault_add("stall p0 --for 200ms")
    assert pair[0].spawn().mmap(PAGE)
    assert time.monotonic() - before >= 0.15


def test_what_cannot_be_is_refused_with_the_reason(pair: Pair) -> None:
    for text, number, why in (
        ("dorp", errno.EINVAL, "no fault is called"),
        ("p0:mm.mmap.reserve=pause", errno.EINVAL, "atomic"),
        ("p0:mm.mmap.reserv=off", errno.ENOENT, "no failpoint"),
        ("poison p0 0xffffffff", errno.EINVAL, "no frame"),
    ):
        with pytest.raises(XpmemError) as caught:
            pair[0].fault_add(text)
        assert (caught.value.errno, why in caught.value.cause) == (number, True)
    assert pair[0].fault_list() == []


def test_the_end_of_a_process_heals_it(pair: Pair) -> None:
    pair[0].fault_add("drop --match type=GET")
    processes.crash("f", "p0")
    processes.boot("f", "p0")
    with connect("p0", "f") as again:
        assert again.fault_list() == []
        wait_for(again, "ACTIVE")
