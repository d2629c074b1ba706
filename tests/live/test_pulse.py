"""A step of the kernel that takes long is no silence: heartbeats go on meanwhile."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client.blocking import Partition
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.cluster.topology import ClusterSpec, load_image, numbered_partitions
from xpmem_emu.codec import Buffer
from xpmem_emu.image import Nanoseconds, XpcSection
from xpmem_emu.kernel.interface import Send
from xpmem_emu.live.pulse import Pulse
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpc.frame import ChannelNumber, Header, decode_frame, encode_frame
from xpmem_emu.xpc.heartbeat import FREE_VALUES
from xpmem_emu.xpc.messages import Heartbeat

from .keyed import eventually
from .loops import let_pass

BUSY = (sys.executable, str(Path(__file__).with_name("busy_partition.py")))
IMAGE = str(Path(__file__).with_name("fence.toml"))
CHECKS = 2
"""For how many checks of its peers the kernel is at work."""


def beat(value: int) -> Send:
    header = Header(0, 1, 1, ChannelNumber.ADMIN, 0)
    return Send(1, "HEARTBEAT", 0, [encode_frame(header, Heartbeat(value, False, 3, True))])


def session(p1: Partition) -> tuple[object, ...]:
    (row,) = p1.look("partitions")
    return row["state"], row["incarnation"]


def changes(p1: Partition) -> list[dict[str, object]]:
    """What p1 told of its peers' states."""
    return [one for one in p1.recent_events() if one["event"] == "xpc:partition"]


@pytest.mark.live
@pytest.mark.usefixtures("home")
def test_no_request_delays_a_heartbeat() -> None:
    """Eight seconds of one step, twice what the image waits for a heartbeat."""
    check_ns = load_image(IMAGE).xpc.heartbeat_check
    spec = ClusterSpec("t", numbered_partitions(2), IMAGE, 16 << 20, lease_s=60, command=BUSY)
    processes.up(spec)
    with connect("p0", "t") as p0, connect("p1", "t") as p1:
        eventually(lambda: session(p1)[0] == "ACTIVE" == session(p0)[0])
        let_pass(0.3)  # three intervals: what is repeated has to be said once
        before, told = session(p1), changes(p1)
        repeated = p0.boot_facts().traffic["heartbeats_repeated"]
        with pytest.raises(XpmemError, match="busy"):
            p0.describe(f"busy-{CHECKS * check_ns // MILLISECOND}")
        assert session(p1) == before
        assert session(p0)[0] == "ACTIVE"
        assert p0.boot_facts().traffic["heartbeats_repeated"] - repeated >= CHECKS
        assert changes(p1) == told


class Heard(list[int]):
    """The values of the heartbeats that a pulse sent."""

    def __call__(self, partid: int, frames: list[Buffer]) -> None:
        message = decode_frame(frames)[1]
        assert isinstance(message, Heartbeat)
        self.append(message.value)


@pytest.fixture
def pulse(request: pytest.FixtureRequest) -> Callable[[], tuple[Pulse, Heard]]:
    """Makes a pulse of 20 ms."""

    def make() -> tuple[Pulse, Heard]:
        heard = Heard()
        xpc = XpcSection(
            heartbeat_interval=Nanoseconds(20 * MILLISECOND),
            heartbeat_check=Nanoseconds(80 * MILLISECOND),
        )
        made = Pulse(xpc, 1, heard)
        request.addfinalizer(made.close)
        return made, heard

    return make


def test_values_rise_and_stay_below_what_the_kernel_says_next(
    pulse: Callable[[], tuple[Pulse, Heard]],
) -> None:
    made, heard = pulse()
    now_ns = time.monotonic_ns()
    made.said(now_ns, beat(4000))
    made.begin(now_ns)
    eventually(lambda: len(heard) >= 3)
    made.end()
    said = len(heard)
    assert heard == list(range(4001, 4001 + said))
    assert said < FREE_VALUES
    let_pass(0.1)
    assert len(heard) == said, "the step is over"


def test_who_did_not_beat_when_the_step_began_does_not_beat_now(
    pulse: Callable[[], tuple[Pulse, Heard]],
) -> None:
    made, heard = pulse()
    made.said(time.monotonic_ns() - 1000 * MILLISECOND, beat(4000))
    made.begin(time.monotonic_ns())
    let_pass(0.1)
    made.end()
    assert heard == []


def test_a_step_that_does_not_end_is_no_work(
    pulse: Callable[[], tuple[Pulse, Heard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xpmem_emu.live.pulse.STEP_MAX_S", 0.2)
    made, heard = pulse()
    made.said(time.monotonic_ns(), beat(4000))
    made.begin(time.monotonic_ns())
    let_pass(0.5)
    said = len(heard)
    assert said > 0
    let_pass(0.1)
    assert len(heard) == said
    made.end()


def test_a_closed_pulse_has_no_thread(pulse: Callable[[], tuple[Pulse, Heard]]) -> None:
    made, _ = pulse()
    made.close()
    assert "pulse" not in {thread.name for thread in threading.enumerate()}
