"""get, describe, pagetable, events, top, completion, and the options that all commands have."""

import json
import time
from collections.abc import Callable

import pytest
import yaml

from xpmem_emu.cli.look import TABLES
from xpmem_emu.cli.top import Rates

from .conftest import Shell
from .fake import FakeEmulator


@pytest.fixture
def segid(shell: Shell) -> str:
    segid = shell.ok("export", "--size", "8K", "--on", "p1")
    shell.ok("attach", segid, "--on", "p2", "--at", "0x5000")
    return segid


def test_get_lists_all_partitions_in_one_table(shell: Shell, segid: str) -> None:
    lines = shell.ok("get", "segments").splitlines()
    assert lines[0].split()[:2] == ["PARTITION", "SEGID"]
    assert lines[1].split()[:2] == ["p1", segid]
    assert "HANDLE" in shell.ok("get", "segments", "-o", "wide").splitlines()[0]


def test_get_adds_the_handle_of_an_attachment(shell: Shell, segid: str) -> None:
    (row,) = json.loads(shell.ok("get", "attachments", "-o", "json"))["items"]
    assert row["handle"] == "p2:7:1:0x5000"
    assert row["segid"] == segid


def test_documents_and_streams_are_never_mixed(shell: Shell, segid: str) -> None:
    document = json.loads(shell.ok("get", "permits", "-o", "json"))
    assert document["schema"] == "xpmem-emu/permits/v1"
    assert yaml.safe_load(shell.ok("get", "permits", "-o", "yaml")) == document
    (line,) = shell.ok("get", "permits", "-o", "jsonl").splitlines()
    assert json.loads(line) == document["items"][0]


@pytest.mark.parametrize("kind", TABLES)
def test_nothing_to_list_is_said_on_stderr_and_is_an_empty_document(
    shell: Shell, kind: str
) -> None:
    outcome = shell("get", kind)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"no {kind}\n")
    assert json.loads(shell.ok("get", kind, "-o", "json"))["items"] == []


def test_a_partition_that_does_not_answer_is_left_out_with_a_warning(
    shell: Shell, segid: str
) -> None:
    shell.emulator.silent = {"p0"}
    outcome = shell("get", "segments")
    assert outcome.code == 0
    assert segid in outcome.out
    assert outcome.err.startswith("warning: p0 does not answer: ")


@pytest.mark.parametrize("how", ["still", "hung"])
def test_a_partition_that_hangs_makes_the_answer_a_part_and_its_code_unknown(
    shell: Shell, segid: str, how: str
) -> None:
    setattr(shell.emulator, how, {"p0"})
    for command in (["get", "segments"], ["events"], ["fault", "ls"], ["task", "ls"]):
        outcome = shell(*command)
        assert outcome.code == 2
        assert outcome.err.startswith("warning: p0 does not answer: ")
    assert segid in shell("get", "segments").out
    assert shell("get", "segments", "--on", "p1").code == 0


def test_who_is_dead_or_stands_still_is_told_at_once_with_what_to_type(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(shell.emulator), "partitions", lambda *_: {"p0": 0, "p1": 1, "p2": 2})
    shell.emulator.silent, shell.emulator.still = {"p0"}, {"p1"}
    asked: list[str] = []
    connect = shell.emulator.connect

    def note(partition: str, cluster: str, boot: int = 0) -> object:
        asked.append(partition)
        return connect(partition, cluster, boot)

    monkeypatch.setattr(shell.emulator, "connect", note)
    on = ("--cluster", "lab")
    spawned = shell(*on, "task", "spawn", "--on", "p1")
    assert spawned.code == 2
    assert "p1 stands still, as after a hang; try: xpmem-emu --cluster lab resume" in spawned.err
    status, doctor = shell(*on, "status"), shell(*on, "doctor")
    assert status.code == doctor.code == 1
    for said in (status.out, doctor.out):
        assert "xpmem-emu --cluster lab reboot p0" in said
        assert "xpmem-emu --cluster lab resume p1" in said
    assert "p1" not in asked, "nobody waits for who cannot answer"


def test_no_answer_from_anybody_is_a_failure(shell: Shell) -> None:
    shell.emulator.silent = {"p0", "p1", "p2"}
    outcome = shell("get", "segments")
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("error: get (ECONNREFUSED): ")


def test_an_unknown_partition_or_cluster_is_named_with_those_there_are(shell: Shell) -> None:
    outcome = shell("get", "tasks", "--on", "p7")
    assert outcome.code == 1
    assert outcome.err == (
        "error: get: cluster default has no partition p7; it has p0, p1, p2; try: xpmem-emu ps\n"
    )
    outcome = shell("--cluster", "foo", "get", "tasks")
    assert outcome.code == 1
    assert outcome.err == (
        "error: get (ENOENT): there is no cluster foo; try: xpmem-emu --cluster foo up\n"
    )


def test_the_cluster_comes_from_option_or_environment_and_the_option_wins(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "foo")
    assert "no cluster foo" in shell("get", "tasks").err
    assert "no cluster bar" in shell("get", "tasks", "--cluster", "bar").err
    assert shell("--cluster", "default", "get", "tasks").code == 0


def test_verbose_tells_the_steps(shell: Shell) -> None:
    assert "connecting to p0 of cluster default" in shell("-v", "get", "tasks").err
    assert "connecting" not in shell("get", "tasks").err


def test_describe_finds_an_id_wherever_it_is(shell: Shell, segid: str) -> None:
    told = json.loads(shell.ok("describe", segid, "-o", "json"))
    assert (told["partition"], told["segid"]) == ("p1", segid)
    outcome = shell("describe", "0x77")
    assert outcome.code == 1
    assert "no partition knows 0x77" in outcome.err
    assert shell("describe", "1zz").code == 64


def test_pagetable_shows_the_walk(shell: Shell) -> None:
    assert "pgd" in shell.ok("pagetable", shell.ok("task", "spawn", "--on", "p0") + ":0x5000")
    assert shell("pagetable", "p0:7:3").code == 64


def test_events_are_merged_by_time_and_filtered_by_name(shell: Shell) -> None:
    names = [line.split()[1] for line in shell.ok("events", "--match", "xpmem:*").splitlines()]
    assert names == ["p2", "p1", "p0"]
    line = shell.ok("events", "--on", "p0", "--match", "xpmem:*")
    assert line.split() == [
        "0.009000",
        "p0",
        "fault/1",
        "xpmem:fault_end",
        "segid=0x10",
        "pages=49",
    ]
    assert len(shell.ok("events", "-o", "jsonl").splitlines()) == 6
    document = json.loads(shell.ok("events", "-o", "json"))
    assert document["schema"] == "xpmem-emu/events/v1"


def test_following_events_ends_when_the_streams_end(shell: Shell) -> None:
    outcome = shell("events", "-f", "-o", "jsonl")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 6
    assert "warning: p1 sends no more events" in outcome.err


def test_followed_events_stand_in_the_order_of_their_times(shell: Shell) -> None:
    lines = shell("events", "-f", "-o", "jsonl").out.splitlines()
    times = [json.loads(line)["time_ns"] for line in lines]
    assert len(set(times)) == 6
    assert times == sorted(times)


@pytest.mark.parametrize("arguments", [["events", "-f"], ["get", "tasks", "-w"], ["top"]])
def test_what_has_no_end_cannot_be_one_document(shell: Shell, arguments: list[str]) -> None:
    outcome = shell(*arguments, "-o", "json")
    assert outcome.code == 64
    assert "use -o jsonl" in outcome.err


def test_a_watch_shows_again_until_interrupted(
    shell: Shell, segid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    outcome = shell("get", "segments", "-w", "--interval", "20ms")
    assert outcome.code == 130
    assert outcome.out.count(segid) == 3
    assert pauses == [0.02] * 3


def test_rates_are_growth_per_second() -> None:
    rates = Rates()
    totals = {"trace_events": 10, "pinned_total": 0, "unpinned_total": 0}
    assert rates.of("p0", 1.0, totals)["events_per_s"] is None
    grown = totals | {"trace_events": 40, "pinned_total": 100}
    assert rates.of("p0", 3.0, grown) == {"events_per_s": 15, "pins_per_s": 50, "unpins_per_s": 0}


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_the_shell(shell: Shell, name: str) -> None:
    assert "_XPMEM_EMU_COMPLETE" in shell.ok("completion", name)
    assert shell("completion", "tcsh").code == 64


def test_help_is_data_and_alone_it_is_what_one_gets(shell: Shell) -> None:
    for arguments in ([], ["--help"], ["task"], ["vm", "-h"]):
        outcome = shell(*arguments)
        assert outcome.code == 0
        assert outcome.out.startswith("Usage: xpmem-emu")
        assert outcome.err == ""


@pytest.mark.parametrize("group", [[], ["task"], ["vm"], ["fault"], ["sim"], ["keys"]])
def test_no_help_is_cut_in_the_middle_of_a_phrase(shell: Shell, group: list[str]) -> None:
    assert "..." not in shell.ok(*group, "--help").partition("Commands:")[2]


def test_a_wrong_command_suggests_help(shell: Shell) -> None:
    outcome = shell("frobnicate")
    assert outcome.code == 64
    assert outcome.err == (
        "error: xpmem-emu: No such command 'frobnicate'; try: xpmem-emu --help\n"
    )


def test_a_bug_shows_no_traceback_unless_asked(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Callable[[], None]:
        raise RuntimeError("broken")

    monkeypatch.setattr(type(shell.emulator), "partitions", broken)
    assert shell("get", "tasks").err.count("\n") == 1
    assert "Traceback" in shell("get", "tasks", "--debug").err
    assert shell("get", "tasks").code == 3


def test_a_kind_may_be_singular_and_an_unknown_one_is_named_as_typed(
    shell: Shell, segid: str
) -> None:
    assert shell.ok("get", "segment") == shell.ok("get", "segments")
    outcome = shell("get", "segmnt")
    assert outcome.code == 64
    assert "'segmnt' is not one of segments, attach" in outcome.err


def test_get_faults_are_those_that_fault_ls_lists(shell: Shell) -> None:
    for command in (["get", "faults"], ["fault", "ls"]):
        outcome = shell(*command)
        assert (outcome.code, outcome.out, outcome.err) == (0, "", "no faults\n")
    shell.ok("fault", "add", "link p0->p1 drop --name f")
    for form in ("table", "json"):
        assert shell.ok("get", "faults", "-o", form) == shell.ok("fault", "ls", "-o", form)
    assert shell("get", "pagefaults").err == "no pagefaults\n"


def test_status_of_many_partitions_fits_into_a_line_and_names_who_is_apart(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"p{number}" for number in range(16)]
    shell.emulator = FakeEmulator(*names)
    answers: dict[str, dict[str, object]] = {
        name: {
            "boot": 178364521345,
            "uptime_ns": 2 * 10**12,
            "peers": {str(each): {"state": "ACTIVE"} for each in range(16)},
        }
        for name in names
    }
    for name, partition in shell.emulator.running.items():
        monkeypatch.setattr(partition, "status", lambda name=name: answers[name], raising=False)
    lines = shell.ok("status").splitlines()
    assert max(map(len, lines)) < 80
    assert lines[1].split() == ["p0", "well", "178364521345", "33m20s", "16/16", "active", "-"]
    answers["p3"]["peers"] = {"4": {"state": "ACTIVE"}, "5": {"state": "DEACTIVATING"}}
    shell.emulator.silent = {"p9"}
    outcome = shell("status")
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert lines[4].split()[-3:] == ["1/2", "active", "p5=DEACTIVATING"]
    assert "nobody answers at p9 (ECONNREFUSED); try: xpmem-emu reboot p9" in lines[10]
    document = json.loads(shell("status", "-o", "json").out)
    assert document["items"][3]["peers"] == {"p4": "ACTIVE", "p5": "DEACTIVATING"}


def test_lists_are_sorted_and_bare_where_it_is_asked_for(shell: Shell) -> None:
    for size in ("8K", "4K", "12K"):
        shell.ok("export", "--size", size, "--on", "p1")
    lines = shell.ok("get", "segments", "--sort-by", "-size", "--no-headers").splitlines()
    assert [line.split()[3] for line in lines] == ["12K", "8K", "4K"]
    assert shell("get", "segments", "--sort-by", "weight").code == 64
