"""logs of all partitions by time, for people or as they were written; ps --all. Nothing is started:
a run folder with a state file and logs is all that there is."""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from xpmem_emu.cli.main import run_command
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.cluster.liveness import start_ticks
from xpmem_emu.cluster.paths import run_folder
from xpmem_emu.cluster.state import ClusterState, PartitionRecord, locked, write_state

from .conftest import Outcome

Typed = Callable[..., Outcome]


def line(ago_s: int, event: str, **facts: object) -> str:
    when = (datetime.now(UTC) - timedelta(seconds=ago_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps(
        {"partition": "x", "pid": 1, **facts, "event": event, "level": "info", "timestamp": when}
    )


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cluster of two, of whose partitions p0 lives (as this process) and b1 is dead."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XPMEM_EMU_ARENAS", str(tmp_path / "arenas"))
    with locked("lab") as folder:
        state = ClusterState("lab", str(folder), "", [], [])
        for partid, (name, pid) in enumerate((("p0", os.getpid()), ("b1", 1 << 22))):
            state = state.including(
                PartitionRecord(
                    name,
                    partid,
                    "A",
                    "laptop",
                    pid,
                    start_ticks(os.getpid()),
                    "",
                    "",
                    "",
                    str(folder / f"{name}.log"),
                )
            )
        write_state(state)
    (folder / "p0.log").write_text(f"{line(600, 'boot', boot=7)}\n{line(3, 'late')}\n")
    (folder / "b1.log").write_text(
        f"{line(9, 'panic', reason='why')}\nTraceback:\n  \x1b[2J\n{line(1, 'last')}\n"
    )
    return "lab"


@pytest.fixture
def typed(cluster: str, capsys: pytest.CaptureFixture[str]) -> Typed:
    def run_line(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run_command(arguments, CommandSession(cluster=cluster))
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err, said.out.encode())

    return run_line


def test_all_logs_are_one_by_time_and_a_traceback_stays_with_its_line(typed: Typed) -> None:
    lines = typed("logs").out.splitlines()
    assert [each.split()[3] if "|" not in each else "|" for each in lines] == [
        "boot",
        "panic",
        "|",
        "|",
        "late",
        "last",
    ]
    assert lines[0].endswith("p0   INFO    boot boot=7")
    assert "b1   INFO    panic reason=why" in lines[1]
    assert lines[3].endswith("b1   |   \\x1b[2J")


def test_one_log_as_it_was_written(typed: Typed, cluster: str) -> None:
    assert typed("logs", "p0", "-o", "jsonl").out == (run_folder(cluster) / "p0.log").read_text()
    assert typed("logs", "p1").out == typed("logs", "b1").out
    assert typed("logs", "-o", "json").code == 64


def test_only_the_end_or_only_what_is_new(typed: Typed) -> None:
    assert [each.split()[3] for each in typed("logs", "--tail", "1").out.splitlines()] == [
        "late",
        "last",
    ]
    assert typed("logs", "--tail", "0").out == ""
    recent = typed("logs", "--since", "5m").out
    assert "boot" not in recent
    assert "panic" in recent
    assert "Traceback:" in recent


def test_followed_logs_end_when_down_has_removed_them(
    typed: Typed, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, written = run_folder(cluster), list[int]()

    def wait(_seconds: float) -> None:
        if written:
            for name in ("p0", "b1"):
                (folder / f"{name}.log").unlink()
        else:
            with (folder / "p0.log").open("a") as file:
                file.write(f"{line(0, 'more')}\n")
            written.append(1)

    monkeypatch.setattr(time, "sleep", wait)
    out = typed("logs", "p0,b1", "-f", "--tail", "0").out
    assert [each.split()[3] for each in out.splitlines()] == ["more"]


def test_all_clusters_are_listed_with_what_lives_of_them(typed: Typed) -> None:
    run_folder("empty").mkdir()
    items = json.loads(typed("ps", "--all", "-o", "json").out)["items"]
    rows = {row["cluster"]: row for row in items}
    assert list(rows) == ["empty", "lab"]
    counts = [rows["lab"][key] for key in ("state", "partitions", "running", "dead", "strays")]
    assert counts == ["part", 2, 1, 1, 0]
    assert (rows["empty"]["state"], rows["empty"]["partitions"]) == ("dead", 0)
    assert msgspec.json.decode(typed("ps", "-o", "json").out)["items"][1]["state"] == "dead"
