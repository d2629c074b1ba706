"""cat, cp and amo at their edges: what does not fit, what breaks off, what has no end."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from xpmem_emu.cli import data, memory
from xpmem_emu.client.failures import SigBus
from xpmem_emu.errors import Signal, SignalInfo

from .conftest import Shell


def test_what_does_not_fit_is_refused_before_its_first_byte(shell: Shell, tmp_path: Path) -> None:
    handle = shell.ok("attach", shell.ok("export", "--size", "4K", "--on", "p0"), "--on", "p1")
    shell.ok("store", handle, "precious")
    big = tmp_path / "big"
    big.write_bytes(b"x" * 5000)
    for place, free in ((handle, 4096), (f"{handle}+4000", 96)):
        outcome = shell("cp", str(big), place)
        assert outcome.code == 1
        why = f"{big} has more bytes than the {free} from here on: nothing was written"
        assert f"(ENOSPC): {why}; try: --size {free}" in outcome.err
        assert shell.ok("load", handle, "8", "--text") == "precious"
    shell.ok("cp", str(big), f"{handle}+4000", "--size", "96")
    assert shell.ok("load", f"{handle}+4000", "96", "--text") == "x" * 96


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[bytes]]:
    """What is written here comes out of stdin."""
    reading, writing = os.pipe()
    with open(reading) as stdin, open(writing, "wb") as given:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield given


def test_a_dash_is_stdin_or_stdout(
    shell: Shell, piped: IO[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    segid = shell.ok("export", "--size", "4K", "--on", "p0")
    piped.write(b"from a pipe")
    piped.close()
    shell.ok("cp", "-", segid)
    assert shell("cp", segid, "-", "--size", "11").raw == b"from a pipe"
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_that_brings_too_much_is_refused_before_its_first_byte(
    shell: Shell, piped: IO[bytes]
) -> None:
    segid = shell.ok("export", "--size", "4K", "--on", "p0")
    piped.write(b"x" * 4097)
    piped.close()
    assert "- has more bytes than the 4096 from here on" in shell("cp", "-", segid).err
    assert shell.ok("load", segid, "4", "--hex") == "00000000"
    assert "more bytes" in shell("cp", "/dev/zero", segid).err
    shell.ok("cp", "/dev/zero", segid, "--size", "4K")


def test_a_copy_that_breaks_off_says_how_far_it_came(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PIECE", 4096)
    monkeypatch.setattr(data, "PIECE", 4096)
    told = json.loads(shell.ok("export", "--size", "12K", "--on", "p0", "-o", "json"))
    task = shell.emulator.running["p0"].tasks[1]
    calls: list[object] = []

    def second_fails(*call: object) -> bytes:
        calls.append(call)
        if len(calls) == 2:
            raise SigBus(SignalInfo(Signal.SIGBUS, "gone"))
        return bytes(4096)

    monkeypatch.setattr(task, "load", second_fails)
    monkeypatch.setattr(task, "store", second_fails)
    big = tmp_path / "big"
    big.write_bytes(bytes(12288))
    for command in (
        ["cat", told["handle"]],
        ["cp", told["handle"], str(tmp_path / "copy")],
        ["cp", str(big), told["handle"]],
    ):
        calls.clear()
        outcome = shell(*command)
        assert outcome.code == 1
        assert outcome.err.splitlines()[0] == "warning: 4096 of 12288 bytes were copied"


def test_a_file_is_not_emptied_for_memory_that_cannot_be_read(shell: Shell, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("before")
    owner = shell.ok("task", "spawn", "--on", "p0")
    assert shell("cp", f"{owner}:0x4000", str(kept), "--size", "8").code == 1
    assert kept.read_text() == "before"


@pytest.mark.parametrize("command", [["export", "{}", "--on", "p0"], ["demo", "{}"]])
def test_a_fifo_is_refused_and_nobody_waits_for_its_writer(
    shell: Shell, tmp_path: Path, command: list[str]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    outcome = shell(*(word.format(fifo) for word in command))
    assert outcome.code == 1
    assert str(fifo) in outcome.err


def test_each_atomic_operation_takes_the_operands_that_it_needs(shell: Shell) -> None:
    word = shell.ok("export", "--size", "4K", "--on", "p0")
    for arguments in (
        ["compare_swap", "5"],
        ["add", "1", "--compare", "0"],
        ["fetch", "1"],
        ["add"],
        ["swap"],
        ["compare_swap", "--compare", "0"],
    ):
        assert shell("amo", word, *arguments).code == 64
    assert shell.ok("amo", word, "compare_swap", "9", "--compare", "0") == "0"
    assert shell.ok("amo", word, "fetch") == "9"


def test_a_block_transfer_is_between_two_addresses_of_one_task(shell: Shell) -> None:
    memory = shell.ok("task", "mmap", shell.ok("task", "spawn", "--on", "p0"), "8K")
    shell.ok("store", memory, "blocks")
    shell.ok("bte", memory, f"{memory}+4K", "6")
    assert shell.ok("load", f"{memory}+4K", "6", "--text") == "blocks"
    other = shell.ok("task", "mmap", shell.ok("task", "spawn", "--on", "p1"), "4K")
    outcome = shell("bte", memory, other, "6")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "are of two tasks: an engine copies for one" in outcome.err
    assert f"try: xpmem-emu attach SEGID --task {other.rpartition(':')[0]}" in outcome.err
    assert shell("bte", memory, memory).code == 64


def test_text_may_break_anywhere_between_two_pieces(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "schräg, überall — 𝄞"
    size = str(len(text.encode()))
    handle = shell.ok("attach", shell.ok("export", "--size", "4K", "--on", "p0"), "--on", "p1")
    shell.ok("store", handle, text)
    for module in (memory, data):
        monkeypatch.setattr(module, "PIECE", 3)
    assert shell.ok("load", handle, size, "--text") == text
    assert shell.ok("load", handle, size) == text.encode().hex()
    assert shell.ok("load", handle, "9", "--text") == "schräg, "
    # In the middle of a character.
    assert shell.ok("load", handle, "5", "--text") == "schr\\xc3"


@pytest.mark.parametrize(
    ("option", "size", "what"),
    [(("--int",), 1025, "number"), (("-o", "json"), (16 << 20) + 1, "document")],
)
def test_what_is_made_whole_in_memory_is_bounded(
    shell: Shell, option: tuple[str, ...], size: int, what: str
) -> None:
    handle = shell.ok("attach", shell.ok("export", "--size", "32M", "--on", "p0"), "--on", "p1")
    outcome = shell("load", handle, str(size), *option)
    assert outcome.code == 1
    assert f"(E2BIG): {size} bytes are too many for one {what}: at most {size - 1}" in outcome.err
    assert f"cp {handle} FILE --size {size}" in outcome.err
    assert shell.ok("load", handle, str(min(size - 1, 4096)), *option)
