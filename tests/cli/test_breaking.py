"""The break group against real partitions: what is put up is listed, hits, and heals."""

import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from xpmem_emu.cli.main import run_command
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.client.blocking import connect
from xpmem_emu.polling import wait_until

from .conftest import Shell
from .test_live import Live

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        patch.delenv("XPMEM_EMU_CLUSTER", raising=False)
        name = f"break-{os.getpid()}"
        assert (
            run_command(["up", "-n", "3", "--memory", "16M", "-q"], CommandSession(cluster=name))
            == 0
        )
        yield name
        assert run_command(["down", "-q"], CommandSession(cluster=name)) == 0


@pytest.fixture
def live(cluster: str, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Live]:
    live = Live(cluster, capfdbinary)
    yield live
    live.ok("fault", "reset")


def in_force(live: Live) -> dict[str, dict[str, object]]:
    rows = json.loads(live.ok("fault", "ls", "-o", "json"))["items"]
    return {row["name"]: row for row in rows}


def states(live: Live) -> set[str]:
    rows = json.loads(live.ok("get", "partitions", "-o", "json"))["items"]
    return {row["state"] for row in rows}


def all_active(live: Live) -> bool:
    return wait_until(lambda: states(live) == {"ACTIVE"}, 20)


def test_the_example_of_the_design_is_in_force_where_it_concerns_somebody(live: Live) -> None:
    text = "link p0->p2 delay 20ms --jitter 5ms --for 30s --name slow"
    assert live.ok("fault", "add", *text.split()) == "slow"
    row = in_force(live)["slow"]
    assert row["fault"] == text
    assert row["on"] == ["p0"]
    assert 0 < int(str(row["left_ns"])) <= 30_000_000_000
    live.ok("fault", "rm", "slow")
    assert in_force(live) == {}


def test_a_dropped_message_counts_as_a_hit_and_the_access_succeeds(live: Live) -> None:
    name = live.ok(
        "fault", "add", "link p0->p1", "drop", "--match", "type=FAULT_REPLY", "--times", "1"
    )
    handle = live.ok("attach", live.ok("export", "--size", "4K", "--on", "p0"), "--on", "p1")
    assert live.ok("load", handle, "1") == "00"
    assert in_force(live)[name]["hits"] == 1
    names = live.ok("events", "--on", "p0", "--match", "fabric:*")
    assert "fabric:begin" in names
    assert "fabric:hit" in names


def test_names_are_unique_over_the_cluster(live: Live) -> None:
    assert live.ok("fault", "add", "drop --prob 0") == "drop-1"
    assert live.ok("fault", "add", "link p1->p2 drop --prob 0") == "drop-2"
    outcome = live("fault", "add", "link p2->p0 drop --prob 0 --name drop-1")
    assert outcome.code == 1
    assert "a fault named drop-1 is in force" in outcome.err
    outcome = live("fault", "rm", "drop-9")
    assert "no fault is named drop-9" in outcome.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("dorp", "no fault is called 'dorp'"),
        ("link p0 drop", "is not a link"),
        ("delay", "write it like `delay TIME`"),
        ("drop --match type=FALUT", "FAULT_REPLY"),
        ("drop --burst 3", "--burst does not belong here"),
        ("p1:mm.gup.pin=2*retrun", "no action is called 'retrun'"),
    ],
)
def test_a_fault_that_cannot_be_read_is_a_usage_error(live: Live, words: str, why: str) -> None:
    outcome = live("fault", "add", words)
    assert outcome.code == 64
    assert why in outcome.err


def test_a_fault_of_a_partition_that_is_not_there_is_refused(live: Live) -> None:
    outcome = live("fault", "add", "link p7->p0 drop")
    assert outcome.code == 1
    assert "no partition p7" in outcome.err
    outcome = live("fault", "add", "p0,p1:xpmem.fault.before_send=delay(5ms) --name f")
    assert outcome.code == 0
    outcome = live("fault", "add", "p0,p1:mm.mmap.reserve=pause")
    assert "pause sleeps, and mm.mmap.reserve is atomic" in outcome.err
    assert list(in_force(live)) == ["f"]


def test_a_partition_is_cut_off_and_healed(live: Live) -> None:
    assert all_active(live)
    live.ok("fault", "add", "drop --prob 0 --name stays")
    name = live.ok("partition", "p0,p1", "p2")
    assert in_force(live)[name]["fault"] == f"split p0,p1|p2 --name {name}"
    assert wait_until(lambda: len(states(live)) > 1, 20)
    outcome = live("heal")
    assert outcome.err == f"healed {name}\n"
    assert list(in_force(live)) == ["stays"]
    assert all_active(live)


def test_held_messages_go_when_they_are_released(live: Live) -> None:
    assert all_active(live)
    handle = live.ok("attach", live.ok("export", "--size", "4K", "--on", "p0"), "--on", "p1")
    name = live.ok("hold", "p0->p1", "--match", "type=FAULT_REPLY")
    partition, _boot, pid, address = handle.split(":")
    with connect(partition, live.name) as other:
        before = len(in_force(live))
        with ThreadPoolExecutor(1) as pool:
            access = pool.submit(other.task(int(pid)).load, int(address, 16), 1)
            assert wait_until(lambda: int(str(in_force(live)[name]["held"])) > 0, 20)
            assert not access.done()
            live.ok("release-held")
            assert access.result(20) == b"\0"
    assert before == 1
    assert in_force(live) == {}
    assert live("release-held").code == 1


def test_failpoints_are_listed_set_hit_and_cleared(live: Live) -> None:
    table = live.ok("failpoint", "ls", "--on", "p1")
    assert len(table.splitlines()) > 25
    assert "xpmem.fault.before_reply" in table
    live.ok("failpoint", "set", "p0:xpmem.make.segment=1*return(ENOSPC)->off")
    outcome = live("export", "--size", "4K", "--on", "p0")
    assert outcome.code == 1
    assert "(ENOSPC): failpoint xpmem.make.segment said so" in outcome.err
    rows = json.loads(live.ok("failpoint", "ls", "--set", "-o", "json"))["items"]
    assert [(row["partition"], row["hits"]) for row in rows] == [("p0", 1)]
    live.ok("failpoint", "rm", "p0:xpmem.make.segment")
    assert json.loads(live.ok("failpoint", "ls", "--set", "-o", "json"))["items"] == []


def test_an_unknown_failpoint_is_refused_with_near_matches(live: Live) -> None:
    outcome = live("failpoint", "set", "p1:xpmem.fault.before_rply=pause")
    assert outcome.code == 1
    assert "try: xpmem.fault.before_reply" in outcome.err
    assert live("failpoint", "set", "xpmem.fault.before_reply=pause").code == 64
    assert live("failpoint", "set", "p1:xpmem.fault.before_reply").code == 64
    assert live("failpoint", "rm").code == 64


def test_a_paused_thread_goes_on_when_it_is_resumed(live: Live) -> None:
    live.ok("failpoint", "set", "p2:kernel.call.before_answer=1*pause")
    with connect("p2", live.name) as p2, ThreadPoolExecutor(1) as pool:
        call = pool.submit(p2.spawn)
        paused = ("failpoint", "ls", "--on", "p2", "--set", "-o", "json")
        assert wait_until(lambda: json.loads(live.ok(*paused))["items"][0]["paused"] == 1, 20)
        assert live.ok("failpoint", "resume", "p2:kernel.call.before_answer") == "1"
        assert call.result(20).pid


def test_processes_are_stopped_killed_panicked_and_booted_again(live: Live) -> None:
    live.ok("hang", "p2")
    assert wait_until(lambda: "stopped" in live.ok("ps"), 20)
    live.ok("resume", "p2")
    assert wait_until(lambda: live.ok("ps").count("running") == 3, 20)
    live.ok("panic", "p1", "--reason", "on purpose")
    assert "on purpose" in live.ok("logs", "p1")
    live.ok("crash", "p2")
    assert wait_until(lambda: live.ok("ps").count("dead") == 2, 20)
    assert live("crash", "p2").code == 1
    live.ok("reboot", "p1,p2")
    assert all_active(live)


def test_a_raw_load_of_a_kernel_panics_it_where_an_engine_says_eio(live: Live) -> None:
    handle = live.ok("attach", live.ok("export", "--size", "4K", "--on", "p0"), "--on", "p1")
    live.ok("store", handle, "\x01\0\0\0\0\0\0\0")
    walk = json.loads(live.ok("pagetable", handle, "-o", "json"))
    frame = (int(walk["pte"], 16) >> 12) & ((1 << 38) - 1)
    assert live.ok("raw-load", "p1", "p0", f"{frame:#x}") == "0x1"
    live.ok("fault", "add", f"poison p0 {frame:#x}")
    own = live.ok("task", "mmap", handle.rpartition(":")[0], "4K")
    assert "machine check" in live("bte", handle, own, "4K").err
    assert "machine check" in live("raw-load", "p1", "p0", f"{frame:#x}").err
    assert wait_until(lambda: live.ok("ps").count("running") == 2, 20)
    live.ok("reboot", "p1")
    assert all_active(live)


def test_a_poisoned_frame_kills_who_touches_it(live: Live) -> None:
    handle = live.ok("export", "--size", "4K", "--on", "p0", "-o", "json")
    memory = json.loads(handle)["handle"]
    live.ok("store", memory, "data")
    walk = json.loads(live.ok("pagetable", memory, "-o", "json"))
    frame = (int(walk["pte"], 16) >> 12) & ((1 << 38) - 1)
    live.ok("fault", "add", f"poison p0 {frame:#x}")
    outcome = live("load", memory, "1")
    assert outcome.code == 1
    assert "machine check: frame" in outcome.err
    assert memory.rpartition(":")[0] not in live.ok("task", "ls", "--on", "p0")


def test_the_group_explains_itself(shell: Shell) -> None:
    help_text = shell.ok("--help")
    for command in ("fault", "partition", "heal", "hold", "release-held", "crash", "failpoint"):
        assert command in help_text
    assert "delay 20ms" in shell.ok("fault", "add", "--help")
