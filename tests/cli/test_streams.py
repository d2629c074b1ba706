"""Before and after a command: Ctrl-C at any moment; streams that are closed, full, or left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xpmem_emu.__main__ import Data, Talk, text_stream
from xpmem_emu.cli.main import run_command

from .conftest import Shell

FULL = "/dev/full"
ENTRY = "import sys\nfrom xpmem_emu.__main__ import main\nsys.exit(main())"
PLAYED = (
    "import os, sys, types\n"
    "def command():\n"
    "    print('data', flush=True)\n"
    "    print('talk', file=sys.stderr)\n"
    "    assert os.open('/', os.O_RDONLY) > 2, 'a file has the number of a standard stream'\n"
    "    return 7\n"
    "sys.modules['xpmem_emu.cli.main'] = types.SimpleNamespace(main=command)\n"
) + ENTRY


def test_ctrl_c_while_the_program_is_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    program = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{ENTRY}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_when_all_is_over_is_silent() -> None:
    late = f"import atexit, os\natexit.register(os.kill, os.getpid(), 2)\n{PLAYED}"
    done = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "data\n", "talk\n")


@pytest.mark.parametrize(
    ("closed", "said"),
    [
        ("<&-", ("data\n", "talk\n")),
        (">&-", ("", "talk\n")),
        ("2>&-", ("data\n", "")),
        ("<&- >&- 2>&-", ("", "")),
    ],
)
def test_closed_streams_change_neither_the_work_nor_its_code(
    closed: str, said: tuple[str, str]
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, PLAYED],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, *said)


@pytest.mark.parametrize(
    "arguments", [["ps", "--help"], ["get", "segments", "-o", "json"], ["events"], ["demo", "-h"]]
)
def test_what_cannot_be_written_to_stdout_is_one_line_and_no_failure_of_the_cluster(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    arguments: list[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", text_stream(Data(FULL, "wb"), None))
    assert run_command(arguments, shell.emulator.session()) == 3
    sys.stdout.flush()  # as the interpreter does at its end
    line = capfdbinary.readouterr().err.decode().splitlines()[-1]
    assert "(ENOSPC): the result could not be written to stdout: No space left" in line


def test_a_file_that_does_not_fit_is_not_taken_for_stdout(shell: Shell) -> None:
    handle = shell.ok("attach", shell.ok("export", "--size", "8K", "--on", "p0"), "--on", "p1")
    outcome = shell("cp", handle, FULL)
    assert outcome.code == 1
    assert "stdout" not in outcome.err


def test_talk_that_nobody_can_hear_stops_no_work(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", text_stream(Talk(FULL, "wb"), None))
    assert run_command(["export", "--size", "4K", "--on", "p0"], shell.emulator.session()) == 0
    assert run_command(["export"], shell.emulator.session()) == 64
    assert len(shell.emulator.running["p0"].segments) == 1


def test_names_that_are_no_text_can_be_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = os.fsdecode(b"\xff.bin")
    said = tmp_path / "said"
    with text_stream(Data(said, "wb"), None) as stream:
        print(name, file=stream)
    assert said.read_bytes() == b"\\udcff.bin\n"
