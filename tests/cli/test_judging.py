"""`judge` on files: what it says, and its exit codes."""

from pathlib import Path

import msgspec
import pytest

from xpmem_emu.cli.failure import ExitCode
from xpmem_emu.cli.main import run_command
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.kernel.events import KernelBoot, KernelPanic
from xpmem_emu.trace import Event, Record


def stream(folder: Path, *events: Event) -> str:
    """A file with a boot and these events."""
    boot = KernelBoot(boot=1, image="laptop", frames=16)
    path = folder / "p0.events.jsonl"
    records = [
        Record(number, number, 0, "thread", event)
        for number, event in enumerate((boot, *events), start=1)
    ]
    path.write_bytes(b"".join(msgspec.json.encode(one.flat()) + b"\n" for one in records))
    return str(path)


def test_a_good_stream_is_valid_and_what_was_not_judged_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["judge", stream(tmp_path), "--at-rest"], CommandSession()) == ExitCode.DONE
    out = capsys.readouterr().out
    assert "verdict: valid" in out
    assert "not judged  S1" in out
    assert "judged      L4" in out


def test_a_panic_is_a_violation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = stream(tmp_path, KernelPanic(reason="KernelBug: why", place="there"))
    assert run_command(["judge", file], CommandSession()) == ExitCode.FAILED
    assert "S11 on p0 at 0.000 ms: panic: KernelBug: why (there)" in capsys.readouterr().out


def test_a_damaged_stream_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = stream(tmp_path, KernelPanic(reason="a", place="b"))
    lines = Path(file).read_bytes().splitlines(keepends=True)
    Path(file).write_bytes(lines[1])
    assert run_command(["judge", file], CommandSession()) == ExitCode.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "EBADMSG" in line
    assert "line 1" in line
