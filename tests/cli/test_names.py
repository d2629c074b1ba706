"""Partitions by the names of their topology and by their numbers: either is understood wherever a
partition is meant, the topology's name is shown, and an unknown one is refused with the known."""

import json

import pytest

from .conftest import Shell
from .fake import FakeEmulator, Row


@pytest.fixture
def shell(shell: Shell) -> Shell:
    shell.emulator = FakeEmulator("a0", "a1", "b0")
    return shell


@pytest.mark.parametrize("where", ["b0", "p2", "2"])
def test_a_partition_is_meant_by_name_or_number(shell: Shell, where: str) -> None:
    segid = shell.ok("export", "--size", "4K", "--on", where)
    handle = shell.ok("attach", segid, "--on", where)
    assert handle.startswith("b0:7:")
    typed = handle.replace("b0", where, 1)
    shell.ok("store", typed, "hello")
    assert shell.ok("load", handle, "5", "--text") == "hello"
    task = shell.ok("task", "spawn", "--on", where)
    assert task.startswith("b0:7:")
    shell.ok("task", "mmap", task.replace("b0", where, 1), "4K")
    shell.ok("vm", "creat", where, "data", "4K")
    shell.ok("vm", "reclaim", where, "--of", handle, "--size", "4K")
    shell.ok("failpoint", "set", f"{where}:mm.gup.pin=off")
    assert shell.emulator.running["b0"].points == {"mm.gup.pin": "off"}
    assert shell.ok("describe", typed, "-o", "json").count('"b0"') == 1
    assert shell.ok("get", "tasks", "--on", f"{where},b0").count("b0  ") == 3
    shell.ok("remove", segid)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("link a0->b0 drop", "link a0->b0 drop"),
        ("link p0<->a1,2 loss 5%", "link a0<->a1,b0 loss 0.05"),
        ("link *->p0-1 drop", "link *->a0,a1 drop"),
        ("split a0,a1|b0", "split a0,a1|b0"),
        ("hold --match sender=b0,receiver=p0", "hold --match sender=b0,receiver=a0"),
        ("clock b0 skew 0.1", "clock b0 skew 0.1"),
        ("throttle p1 5ms", "throttle a1 5ms"),
        ("stall a0,p2", "stall a0,b0"),
        ("poison b0 0x12", "poison b0 0x12"),
        ("strain p1 number 7", "strain a1 number 7"),
        ("b0:mm.gup.pin=pause", "b0:mm.gup.pin=pause"),
    ],
)
def test_faults_are_typed_and_listed_in_names_and_kept_in_numbers(
    shell: Shell, typed: str, shown: str
) -> None:
    name = shell.ok("fault", "add", typed)
    (row,) = json.loads(shell.ok("fault", "ls", "-o", "json"))["items"]
    assert row["fault"] == f"{shown} --name {name}"
    kept = [text for each in shell.emulator.running.values() for text in each.faults.values()]
    assert kept
    assert not any("a0" in text or "b0" in text for text in kept)


def test_sides_are_cut_by_name(shell: Shell) -> None:
    shell.ok("partition", "a0,a1", "b0")
    assert "split a0,a1|b0" in shell.ok("fault", "ls")
    assert "split p0,p1|p2" in next(iter(shell.emulator.running["a0"].faults.values()))
    shell.ok("hold", "a0->b0")
    assert "link a0->b0 hold" in shell.ok("fault", "ls")


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "tasks", "--on", "c0"],
        ["export", "--size", "4K", "--on", "p3"],
        ["attach", "0x10", "--on", "c0"],
        ["task", "spawn", "--on", "3"],
        ["load", "c0:7:1:0x1000", "1"],
        ["task", "kill", "p9:7:1"],
        ["vm", "creat", "c0", "f", "4K"],
        ["describe", "c0"],
        ["vm", "reclaim", "a0", "--of", "c0:7:1:0x10", "--size", "4K"],
        ["failpoint", "set", "c0:mm.gup.pin=off"],
        ["failpoint", "rm", "p7:mm.gup.pin"],
        ["failpoint", "resume", "c0:mm.gup.pin"],
        ["fault", "ls", "--on", "c0"],
        ["fault", "add", "link a0->p9 drop"],
        ["fault", "add", "link c0->a0 drop"],
        ["fault", "add", "link a0->p1-5 drop"],
        ["fault", "add", "hold --match receiver=c0"],
        ["fault", "add", "split a0|c0"],
        ["fault", "add", "stall p200"],
        ["fault", "add", "poison c0 0x1"],
        ["fault", "add", "c0:mm.gup.pin=off"],
        ["partition", "a0", "c0"],
        ["hold", "a0->p9"],
        ["panic", "c0"],
        ["crash", "p7"],
        ["remove", "0x9070000100001"],
        ["logs", "c0"],
    ],
)
def test_an_unknown_partition_is_refused_with_those_there_are(
    shell: Shell, arguments: list[str]
) -> None:
    outcome = shell(*arguments)
    assert outcome.code == 1
    assert "cluster default has no partition " in outcome.err
    assert "; it has a0 (p0), a1 (p1), b0 (p2); try: xpmem-emu ps" in outcome.err
    assert not any(each.faults for each in shell.emulator.running.values())


def test_what_kernels_report_in_numbers_is_shown_in_names(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    row: Row = {"segid": 16, "pid": 1, "vaddr": 4096, "holders": {"p1": 3, "p2": 4}, "partid": 2}
    peer: Row = {"peer": 2, "state": "ACTIVE", "reason": "p1 says so", "partid": 0}
    b0 = shell.emulator.running["b0"]
    monkeypatch.setattr(b0, "_segment_rows", lambda: iter([row]))
    assert "a1=3 b0=4" in shell.ok("get", "segments")
    (said,) = json.loads(shell.ok("get", "segments", "-o", "json"))["items"]
    assert said["holders"] == {"a1": 3, "b0": 4}
    monkeypatch.setattr(b0, "look", lambda kind: [peer])
    assert "b0         b0    ACTIVE  a1 says so" in shell.ok("get", "partitions", "--on", "b0")
    (said,) = json.loads(shell.ok("get", "partitions", "--on", "b0", "-o", "json"))["items"]
    assert said["peer"] == 2, "for programs a number stays one"
    event: Row = {
        "record": 1,
        "time_ns": 5,
        "partid": 0,
        "thread": "x",
        "event": "xpc:send",
        "peer": 1,
        "holders": [0, 2],
    }
    monkeypatch.setattr(type(b0), "recent_events", lambda self: [event])
    assert "peer=a1 holders=a0,b0" in shell.ok("events", "--on", "a0")
    assert "peer=a1 holders=a0,b0" in shell("events", "-f", "--on", "a0").out


def test_signals_and_refusals_are_told_in_names(shell: Shell) -> None:
    handle = shell.ok("attach", shell.ok("export", "--size", "4K", "--on", "a0"), "--on", "b0")
    b0 = shell.emulator.running["b0"]
    b0.tasks[1].areas.clear()
    b0.tasks[1].why = "page 0 of p2 is gone"
    assert "page 0 of b0 is gone" in shell("load", handle, "1").err
