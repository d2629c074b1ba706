"""The command line against real partition processes: one cluster, and the demo."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from xpmem_emu.backend import processes as launcher
from xpmem_emu.cli.main import run_command
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.client.blocking import Partition, connect
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.polling import wait_until

from .conftest import Outcome

pytestmark = pytest.mark.live


class Live:
    """Runs commands on one cluster."""

    def __init__(self, name: str, capture: pytest.CaptureFixture[bytes]) -> None:
        self.name = name
        self._capture = capture

    def __call__(self, *arguments: str) -> Outcome:
        self._capture.readouterr()
        code = run_command(arguments, CommandSession(cluster=self.name))
        said = self._capture.readouterr()
        return Outcome(code, said.out.decode(errors="replace"), said.err.decode(), said.out)

    def ok(self, *arguments: str) -> str:
        outcome = self(*arguments)
        assert outcome.code == 0, outcome.err
        return outcome.out.rstrip("\n")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Three partitions in folders of their own; short ones, for the sake of socket paths."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        patch.delenv("XPMEM_EMU_CLUSTER", raising=False)
        name = f"cli-{os.getpid()}"
        up = ["up", "-n", "3", "--memory", "32M", "--image", "patient", "-q"]
        assert run_command(up, CommandSession(cluster=name)) == 0
        yield name
        assert run_command(["down", "-q"], CommandSession(cluster=name)) == 0


@pytest.fixture
def live(cluster: str, capfdbinary: pytest.CaptureFixture[bytes]) -> Live:
    return Live(cluster, capfdbinary)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(3 * 4096 + 1234))
    return path


def tasks_of(live: Live, partition: str) -> list[str]:
    document = json.loads(live.ok("task", "ls", "--on", partition, "-o", "json"))
    return [row["pid"] for row in document["items"]]


def test_a_file_survives_the_way_through_two_partitions(live: Live, file: Path) -> None:
    segid = live.ok("export", str(file), "--on", "p0")
    handle = live.ok("attach", segid, "--on", "p1")
    for memory in (handle, segid):
        assert live("cat", memory).raw == file.read_bytes()
        assert len(live("cat", memory, "--size", "16K").raw) == 4 * 4096
    part = live.ok("attach", segid, "--on", "p1", "--offset", "8K")
    assert live("cat", part).raw == file.read_bytes()[8192:]
    outcome = live("cp", str(file), f"{handle}+8K")
    assert "more bytes than the 8192 from here on: nothing was written" in outcome.err
    assert live("cat", handle).raw == file.read_bytes()


def test_part_of_a_segment_can_be_attached_anywhere(live: Live, file: Path) -> None:
    segid = live.ok("export", str(file), "--on", "p0")
    handle = live.ok("attach", segid, "--on", "p2", "--offset", "8K", "--at", "0x100000000")
    assert handle.endswith(":0x100000000")
    assert live("cat", handle, "--size", "4K").raw == file.read_bytes()[8192 : 8192 + 4096]
    outcome = live("attach", segid, "--on", "p2", "--offset", "16K")
    assert outcome.code == 1
    assert "offset 0x4000 is not inside the segment of 0x4000 bytes" in outcome.err


def test_a_store_on_one_partition_is_a_load_on_another(live: Live) -> None:
    segid = live.ok("export", "--size", "8K", "--on", "p0")
    one, two = (live.ok("attach", segid, "--on", where) for where in ("p1", "p2"))
    live.ok("store", f"{one}+4K", "hello")
    assert live.ok("load", f"{two}+4K", "5", "--text") == "hello"


def test_a_removed_segment_is_a_sigbus_that_says_why_and_describe_remembers(live: Live) -> None:
    segid = live.ok("export", "--size", "4K", "--on", "p0")
    handle = live.ok("attach", segid, "--on", "p1")
    live.ok("load", handle, "1")
    live.ok("remove", segid)
    outcome = live("load", handle, "1")
    assert outcome.code == 1
    assert f"error: load: the task got SIGBUS at {handle.rpartition(':')[2]}" in outcome.err
    assert "removed" in outcome.err
    assert "SIGBUS" in live.ok("task", "ls", "--on", "p1")


def test_truncation_and_unmapping_take_pages_from_importers(live: Live) -> None:
    owner = live.ok("task", "spawn", "--on", "p0")
    live.ok("vm", "creat", "p0", "field", "16K")
    memory = live.ok("task", "mmap", owner, "16K", "--file", "field")
    segid = live.ok("export", memory, "--size", "16K")
    handle = live.ok("attach", segid, "--on", "p1")
    assert len(live("cat", handle).raw) == 16384
    live.ok("vm", "truncate", "p0", "field", "8K")
    assert live("load", f"{handle}+12K", "1").code == 1
    live.ok("task", "munmap", f"{memory}+4K", "12K")
    assert live("load", f"{handle}+4K", "1").code == 1
    assert live.ok("load", handle, "1") == "00"


def test_atomic_operations_need_uncached_memory_and_say_what_was_there(live: Live) -> None:
    owner = live.ok("task", "spawn", "--on", "p0")
    word = live.ok("task", "mmap", owner, "4K", "--uncached")
    handle = live.ok("attach", live.ok("export", word, "--size", "4K"), "--on", "p1")
    assert live.ok("amo", handle, "add", "5") == "0"
    assert live.ok("amo", word, "compare_swap", "9", "--compare", "5") == "5"
    assert live.ok("load", handle, "8", "--int") == "9"


def test_a_page_of_mspec_is_for_its_task_to_fill(live: Live) -> None:
    word = live.ok("task", "mmap", live.ok("task", "spawn", "--on", "p0"), "4K", "--mspec")
    handle = live.ok("attach", live.ok("export", word, "--size", "4K"), "--on", "p1")
    assert "must touch it first" in live("amo", handle, "add", "1").err
    assert live.ok("amo", word, "add", "1") == "0"
    handle = live.ok("attach", live.ok("export", word, "--size", "4K"), "--on", "p1")
    assert live.ok("amo", handle, "add", "1") == "1"


def test_a_block_transfer_of_what_is_not_there_is_an_error_and_says_how_far_it_came(
    live: Live,
) -> None:
    memory = live.ok("task", "mmap", live.ok("task", "spawn", "--on", "p0"), "8K")
    live.ok("store", memory, "blocks")
    handle = live.ok("attach", live.ok("export", memory, "--size", "8K"), "--on", "p1")
    own = live.ok("task", "mmap", handle.rpartition(":")[0], "8K")
    live.ok("bte", handle, own, "8K")
    assert live.ok("load", own, "6", "--text") == "blocks"
    live.ok("task", "munmap", f"{memory}+4K", "4K")
    outcome = live("bte", handle, own, "8K")
    assert outcome.code == 1
    assert "EFAULT" in outcome.err
    assert "of 8192 bytes arrived" in outcome.err
    assert live.ok("load", own, "6", "--text") == "blocks"


def test_everything_about_it_can_be_looked_at(live: Live) -> None:
    segid = live.ok("export", "--size", "4K", "--on", "p0")
    told = json.loads(live.ok("attach", segid, "--on", "p1", "-o", "json"))
    live.ok("load", told["handle"], "1")
    rows = json.loads(live.ok("get", "segments", "-o", "json"))["items"]
    assert next(row["holders"] for row in rows if row["segid"] == segid) == {"p1": 1}
    rows = json.loads(live.ok("get", "attachments", "-o", "json"))["items"]
    assert next(row["held_pages"] for row in rows if row["handle"] == told["handle"]) == 1
    for kind in ("permits", "partitions", "channels", "pins", "tasks"):
        assert "p0" in live.ok("get", kind), kind
    for what in (segid, told["apid"], told["handle"]):
        assert json.loads(live.ok("describe", what, "-o", "json"))["segid"] == segid
    task = told["handle"].rpartition(":")[0]
    assert "name:" in live.ok("describe", task)
    assert "seen_by:" in live.ok("describe", "p0")
    assert live("describe", "p9").code == live("describe", task + "99").code == 1
    assert "pgd" in live.ok("pagetable", told["handle"])
    assert "xpmem:fault_end" in live.ok("events", "--on", "p1", "--match", "xpmem:*")


def test_a_recall_takes_the_translations_of_devices_along(live: Live) -> None:
    """On real partitions: the importer's devices are seen, used, recalled, and seen again."""
    owner = live.ok("task", "spawn", "--on", "p0")
    memory = live.ok("task", "mmap", owner, "16K")
    segid = live.ok("export", memory, "--size", "16K")
    handle = live.ok("attach", segid, "--on", "p1")
    task, _, address = handle.rpartition(":")
    live.ok("store", handle, "shared")
    live.ok("device", "gru", task)
    live.ok("device", "guest", task)
    live.ok("device", "slot", handle, "16K", "0x40000000")
    live.ok("device", "mirror", handle, "16K")
    for at, kind in ((address, "gru"), ("0x40000000", "guest"), (address, "mirror")):
        assert live.ok("device", "load", f"{task}:{at}", kind, "6", "--text") == "shared"
    live.ok("device", "store", f"{task}:0x40000000", "guest", "GUEST")
    assert live.ok("load", memory, "6", "--text") == "GUESTd"
    assert translations(live) == {"gru": 1, "guest": 1, "mirror": 4}
    live.ok("task", "munmap", memory, "16K")
    assert translations(live) == {"gru": 0, "guest": 0, "mirror": 0}
    refused = live("device", "load", handle, "gru", "1")
    assert (refused.code, "EFAULT" in refused.err) == (1, True)
    seen = live.ok("events", "--on", "p1", "--match", "mmu:invalidate", "-o", "jsonl")
    assert {json.loads(each)["device"] for each in seen.splitlines()} == {"gru", "guest", "mirror"}
    live.ok("device", "detach", task, "mirror")
    assert set(translations(live)) == {"gru", "guest"}


def translations(live: Live) -> dict[str, int]:
    rows = json.loads(live.ok("get", "devices", "--on", "p1", "-o", "json"))["items"]
    return {row["device"]: row["translations"] for row in rows}


def test_a_name_of_before_a_reboot_reaches_nobody_after_it(live: Live) -> None:
    segid = live.ok("export", "--size", "1M", "--on", "p0")
    told = json.loads(live.ok("attach", segid, "--on", "p1", "-o", "json"))
    old, task = told["handle"], told["handle"].rpartition(":")[0]
    live.ok("reboot", "p1")
    assert wait_until(lambda: live("status").code == 0, 60)
    same = [live.ok("task", "spawn", "--on", "p1") for _ in range(int(task.rpartition(":")[2]))]
    fresh = live.ok("task", "mmap", same[-1], "1M")
    assert old.split(":")[2:] == fresh.split(":")[2:], "the same pid and address, in another boot"
    for arguments in (
        ["store", old, "stale"],
        ["load", old, "5"],
        ["detach", old],
        ["task", "kill", task],
        ["release", told["apid"]],
        ["attach", segid, "--task", task],
    ):
        outcome = live(*arguments)
        assert outcome.code == 1
        assert "(ESTALE)" in outcome.err
        assert f"try: xpmem-emu --cluster {live.name} get" in outcome.err
    assert live.ok("load", fresh, "5", "--hex") == "00" * 5


def test_detach_release_and_remove_leave_no_pins(live: Live) -> None:
    segid = live.ok("export", "--size", "64K", "--on", "p2")
    told = json.loads(live.ok("attach", segid, "--on", "p1", "-o", "json"))
    live("cat", told["handle"])
    live.ok("detach", told["handle"])
    assert live("load", told["handle"], "1").code == 1
    live.ok("release", told["apid"])
    live.ok("remove", segid)
    assert live("release", told["apid"]).code == 1
    rows = json.loads(live.ok("get", "pins", "--on", "p2", "-o", "json"))["items"]
    assert sum(row["pinned_pages"] for row in rows) == 0


def test_what_does_not_fit_is_refused_and_leaves_nothing(live: Live, tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        file.truncate(200 << 20)
    before = tasks_of(live, "p2")
    outcome = live("export", str(big), "--on", "p2")
    assert outcome.code == 1
    assert outcome.err == (
        f"error: export (ENOMEM): {200 << 20} bytes do not fit into the memory of p2, 32M; "
        f"try: xpmem-emu --cluster {live.name} up --memory SIZE, or a smaller file\n"
    )
    assert tasks_of(live, "p2") == before
    assert live("status").code == 0


def test_the_cluster_is_well_and_a_second_up_says_that_it_runs(live: Live) -> None:
    assert live.ok("status").count("well") == 3
    assert live.ok("ps").count("running") == 3
    assert '"event": "boot"' in live.ok("logs", "p0", "-o", "jsonl")
    assert {line.split()[1] for line in live.ok("logs").splitlines()} == {"p0", "p1", "p2"}
    outcome = live("up", "-n", "3")
    assert outcome.code == 1
    assert "runs already" in outcome.err
    assert "partition p1" in live.ok("doctor")


def test_a_dead_partition_is_told_and_left_out(live: Live) -> None:
    launcher.crash(live.name, "p2")
    outcome = live("get", "tasks")
    assert outcome.code == 0
    assert "warning: p2 does not answer" in outcome.err
    assert live("status").code == 1
    assert "dead" in live.ok("ps")
    assert live("doctor").code == 1
    assert live("export", "--size", "4K", "--on", "p2").code != 0
    launcher.boot(live.name, "p2")
    assert live.ok("ps").count("running") == 3


def test_the_demo_is_valid_for_a_file_of_any_size(live: Live, tmp_path: Path) -> None:
    file = tmp_path / "[red]file.bin"
    file.write_bytes(os.urandom(10_001))
    outcome = live("demo", str(file))
    assert outcome.code == 0, outcome.out
    assert outcome.out.endswith("\nverdict: valid\n")
    assert "WRONG" not in outcome.out
    assert "INVALIDATE_ACK" in outcome.out
    assert file.name in outcome.out


def test_the_demo_as_a_document_is_claims_and_verdict(live: Live, tmp_path: Path) -> None:
    file = tmp_path / "one byte"
    file.write_bytes(b"x")
    outcome = live("demo", str(file), "-o", "json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert (told["schema"], told["verdict"], told["failed"]) == ("xpmem-emu/demo/v1", "valid", 0)
    assert all(claim["holds"] for claim in told["claims"])
    assert f"{len(told['claims'])} claims" not in outcome.out
    assert "p1 is killed (-9)" in outcome.err


def test_a_demo_without_its_file_or_room_is_refused(live: Live, tmp_path: Path) -> None:
    assert live("demo", str(tmp_path / "nothing")).code == 1
    assert live("demo", str(tmp_path)).code == 1
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 42)
    assert "error: demo (ENOSPC): the partitions need" in live("demo", str(huge)).err


def test_partitions_in_the_foreground_find_each_other_and_end_at_sigterm(cluster: str) -> None:
    name = f"{cluster}-boot"
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "xpmem-emu" / name
    command = [sys.executable, "-m", "xpmem_emu.cli.main", "--cluster", name, "boot"]
    options = ["--topology", "pair", "--memory", "16M"]
    running = {
        each: subprocess.Popen([*command, each, *options], stderr=subprocess.PIPE)
        for each in ("p0", "p1")
    }
    try:
        with connect_when_up(f"ipc://{folder}/p0.console") as p0:
            assert wait_until(lambda: p0.status()["peers"]["1"]["state"] == "ACTIVE", 60)
    finally:
        for process in running.values():
            process.terminate()
    assert [process.wait(20) for process in running.values()] == [0, 0]
    launcher.down(name)


def connect_when_up(endpoint: str) -> Partition:
    found: list[Partition] = []

    def answers() -> bool:
        with suppress(XpmemError):
            found.append(connect(endpoint))
        return bool(found)

    assert wait_until(answers, 60)
    return found[0]


def test_a_large_load_takes_no_more_memory_than_a_small_one(live: Live) -> None:
    size = 24 << 20
    handle = live.ok("export", "--size", str(size), "--on", "p0")

    def resident(count: int) -> int:
        """The most KiB that the command had at any time."""
        child = subprocess.Popen(
            [sys.executable, "-m", "xpmem_emu", "--cluster", live.name, "load", handle, str(count)],
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        return used.ru_maxrss

    # Pieces of 1 MiB, as bytes, as text and on their way.
    assert resident(size) - resident(1) < 12 << 10
