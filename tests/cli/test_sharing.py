"""export, attach, cat, cp, load, store, amo and the ways back, as people use them."""

import json
from pathlib import Path

import pytest

from .conftest import Shell


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(range(256)) * 20)
    return path


def test_a_file_goes_from_one_partition_to_another(shell: Shell, file: Path) -> None:
    segid = shell.ok("export", str(file), "--on", "p0")
    assert segid.startswith("0x")
    handle = shell.ok("attach", segid, "--on", "p1")
    assert handle.startswith("p1:7:1:0x")
    outcome = shell("cat", handle, "--size", str(file.stat().st_size))
    assert outcome.raw == file.read_bytes()


def test_a_segment_is_whole_pages_and_a_bare_cat_gives_what_was_exported(
    shell: Shell, file: Path
) -> None:
    segid = shell.ok("export", str(file), "--on", "p0")
    handle = shell.ok("attach", segid, "--on", "p1")
    for memory in (handle, segid, shell.ok("attach", segid, "--on", "p0")):
        assert shell("cat", memory).raw == file.read_bytes()
        assert shell("cat", memory, "--offset", "4K").raw == file.read_bytes()[4096:]
        assert shell("cat", f"{memory}+8191").raw == b""
        assert shell("cat", memory, "--size", "8K").raw == file.read_bytes() + bytes(3072)
    own = json.loads(shell.ok("get", "segments", "-o", "json"))["items"][0]["handle"]
    assert len(shell("cat", own).raw) == 5120
    copy = file.with_name("copy")
    shell.ok("cp", segid, str(copy))
    assert copy.read_bytes() == file.read_bytes()


def test_memory_that_was_not_exported_by_length_is_whole(shell: Shell) -> None:
    owner = shell.ok("task", "spawn", "--on", "p0", "--name", "export.5")
    memory = shell.ok("task", "mmap", owner, "8K")
    segid = shell.ok("export", memory, "--size", "8K")
    assert len(shell("cat", segid).raw) == 8192
    assert len(shell("cat", shell.ok("export", "--size", "5000", "--on", "p0")).raw) == 5000


def test_a_segment_is_memory_that_is_loaded_and_stored_by_its_segid(shell: Shell) -> None:
    segid = shell.ok("export", "--size", "8K", "--on", "p0")
    shell.ok("store", f"{segid}+4K", "hello")
    assert shell.ok("load", f"{segid}+4K", "5", "--text") == "hello"
    assert shell.ok("amo", segid, "add", "3") == "0"
    outcome = shell("cat", "0x7000000000009")
    assert outcome.code == 1
    assert "no partition p7" in outcome.err
    shell.ok("remove", segid)
    outcome = shell("cat", segid)
    assert outcome.code == 1
    assert f"(ENOENT): there is no segment {segid}; try: xpmem-emu get segments" in outcome.err


def test_stdout_has_the_data_and_stderr_the_talk(shell: Shell, file: Path) -> None:
    outcome = shell("export", str(file), "--on", "p0")
    assert len(outcome.out.splitlines()) == 1
    assert "next: xpmem-emu attach" in outcome.err
    assert shell("-q", "export", str(file), "--on", "p0").err == ""
    assert shell("export", str(file), "--on", "p0", "--quiet").err == ""


def test_export_as_json_tells_the_exporters_own_handle(shell: Shell, file: Path) -> None:
    told = json.loads(shell.ok("export", str(file), "--on", "p0", "-o", "json"))
    assert told["schema"] == "xpmem-emu/export/v1"
    assert told["size"] == 8192
    assert told["file_bytes"] == 5120
    assert shell("cat", told["handle"], "--size", "4").raw == b"\0\1\2\3"


def test_what_one_stores_the_other_loads(shell: Shell) -> None:
    segid = shell.ok("export", "--size", "8K", "--on", "p0")
    one = shell.ok("attach", segid, "--on", "p1")
    two = shell.ok("attach", segid, "--on", "p2", "--at", "0x100000")
    assert two == "p2:7:1:0x100000"
    shell.ok("store", f"{one}+0x10", "héllo")
    assert shell.ok("load", f"{two}+16", "6", "--text") == "héllo"
    shell.ok("store", two, "--hex", "ff 01")
    assert shell.ok("load", one, "2") == "ff01"
    assert shell.ok("load", one, "2", "--int") == str(0x01FF)
    loaded = json.loads(shell.ok("load", one, "2", "-o", "json"))
    assert loaded["hex"] == "ff01"


def test_an_atomic_operation_prints_the_word_before(shell: Shell) -> None:
    told = json.loads(shell.ok("export", "--size", "4K", "--on", "p0", "-o", "json"))
    assert shell.ok("amo", told["handle"] + "+8", "add", "5") == "0"
    assert shell.ok("amo", told["handle"] + "+8", "add", "0x10") == "5"


def test_cp_goes_either_way(shell: Shell, file: Path, tmp_path: Path) -> None:
    handle = shell.ok("attach", shell.ok("export", "--size", "8K", "--on", "p0"), "--on", "p1")
    shell.ok("cp", str(file), handle)
    back = tmp_path / "back.bin"
    shell.ok("cp", handle, str(back), "--size", str(file.stat().st_size))
    assert back.read_bytes() == file.read_bytes()


def test_a_name_without_its_boot_is_refused(shell: Shell) -> None:
    owner = shell.ok("task", "spawn", "--on", "p1")
    memory = shell.ok("task", "mmap", owner, "4K")
    for arguments in (
        ["cat", "p1/0x70000000"],
        ["load", "p1:1:0x70000000", "1"],
        ["task", "kill", "p1:1"],
        ["cp", "p1:1:0x70000000", "file"],
        ["export", "p1:1:0x70000000", "--size", "4K"],
        ["describe", "p1:1"],
        ["pagetable", "p1:1:0x70000000"],
    ):
        outcome = shell(*arguments)
        assert outcome.code == 64
        assert "does not say of which boot it is; write it like P:BOOT:PID" in outcome.err
    shell.ok("load", memory, "1")


def test_names_of_before_a_reboot_are_stale(shell: Shell) -> None:
    segid = shell.ok("export", "--size", "8K", "--on", "p1")
    old = json.loads(shell.ok("attach", segid, "--on", "p1", "-o", "json"))
    task = old["handle"].rpartition(":")[0]
    shell.emulator.reboot("p1")
    fresh = shell.ok("task", "mmap", shell.ok("task", "spawn", "--on", "p1"), "8K")
    for arguments in (
        ["store", old["handle"], "x"],
        ["cat", old["handle"]],
        ["detach", old["handle"]],
        ["task", "kill", task],
        ["task", "mmap", task, "4K"],
        ["describe", task],
        ["describe", old["handle"]],
        ["pagetable", old["handle"]],
        ["remove", segid],
        ["release", old["apid"]],
        ["export", old["handle"], "--size", "4K"],
        ["attach", segid, "--task", task],
        ["vm", "reclaim", "p1", "--of", old["handle"], "--size", "4K"],
    ):
        outcome = shell(*arguments)
        assert outcome.code == 1, arguments
        assert "(ESTALE)" in outcome.err, arguments
        assert "; try: " in outcome.err
    assert shell.ok("load", fresh, "1") == "00"


def test_existing_tasks_can_export_and_attach(shell: Shell) -> None:
    owner = shell.ok("task", "spawn", "--on", "p0")
    memory = shell.ok("task", "mmap", owner, "8K")
    segid = shell.ok("export", memory, "--size", "8K")
    importer = shell.ok("task", "spawn", "--on", "p1")
    assert shell.ok("attach", segid, "--task", importer).startswith(f"{importer}:0x")


def test_random_memory_is_not_zero(shell: Shell) -> None:
    told = json.loads(shell.ok("export", "--size", "4K", "--random", "--on", "p0", "-o", "json"))
    assert any(shell("cat", told["handle"]).raw)


def test_the_ways_back(shell: Shell) -> None:
    segid = shell.ok("export", "--size", "4K", "--on", "p0")
    told = json.loads(shell.ok("attach", segid, "--on", "p1", "-o", "json"))
    shell.ok("detach", told["handle"])
    shell.ok("release", told["apid"])
    shell.ok("remove", segid)
    assert shell.emulator.running["p0"].segments == {}
    assert shell.emulator.running["p1"].permits == {}


def test_a_failed_export_leaves_no_task_behind(shell: Shell) -> None:
    outcome = shell("export", "--size", "1G", "--on", "p0")
    assert outcome.code == 1
    assert "error: export (ENOMEM): " in outcome.err
    assert shell.emulator.running["p0"].tasks == {}


def test_a_failed_attach_leaves_no_task_behind(shell: Shell) -> None:
    outcome = shell("attach", "0x1000000100001", "--on", "p1")
    assert outcome.err == (
        "error: attach (ENOENT): no segment 0x1000000100001; try: xpmem-emu get segments\n"
    )
    assert shell.emulator.running["p1"].tasks == {}


def test_a_signal_tells_where_and_why(shell: Shell) -> None:
    owner = shell.ok("task", "spawn", "--on", "p0")
    outcome = shell("load", f"{owner}:0x4000", "8")
    assert outcome.code == 1
    assert outcome.err.startswith("error: load: the task got SIGBUS at 0x4000: nothing is there")


def test_names_need_the_extension_and_the_error_says_so(shell: Shell) -> None:
    for arguments in (
        ("attach", "field", "--on", "p1"),
        ("export", "--size", "4K", "--on", "p0", "--name", "field"),
    ):
        outcome = shell(*arguments)
        assert outcome.code == 1
        assert "try: set extensions.segment_names in the image" in outcome.err


def test_a_file_that_is_missing_or_not_readable_is_named(shell: Shell, tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    outcome = shell("export", str(missing), "--on", "p0")
    assert outcome.code == 1
    assert outcome.err == (
        f"error: export (ENOENT): {missing}: No such file or directory; try: check the path\n"
    )
    assert shell("export", str(tmp_path), "--on", "p0").err.startswith(
        f"error: export (EISDIR): {tmp_path}: Is a directory"
    )


def test_an_empty_file_and_a_device_are_no_segments(shell: Shell, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert "is empty" in shell("export", str(empty), "--on", "p0").err
    assert "not a regular file" in shell("export", "/dev/zero", "--on", "p0").err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["export", "--on", "p0"], "Give either a FILE"),
        (["export", "--size", "0", "--on", "p0"], "Give either a FILE"),
        (["export", "--size", "4K"], "Missing option '--on'"),
        (["export", "p0:7:1:0x1000"], "give its handle and --size"),
        (["export", "--size", "4Q", "--on", "p0"], "write it like 4096, 64K"),
        (["export", "--size", "4K", "--on", "p0", "--mode", "999"], "octal"),
        (["export", "--size", "4K", "--on", "p 0"], "write it like p0"),
        (["attach", "0x10"], "either --on P for a new task, or --task"),
        (["attach", "0x10", "--on", "p0", "--task", "p0:7:1"], "either --on P"),
        (["attach", "1x", "--on", "p0"], "not a number"),
        (["cat", "p1"], "write it like P:BOOT:PID:0xADDR"),
        (["cp", "a", "b"], "is a handle"),
        (["cp", "p0:7:1:0x1", "p0:7:1:0x2"], "the other a file"),
        (["load", "p0:7:1:0x1000"], "Missing argument 'SIZE'"),
        (["store", "p0:7:1:0x1000"], "Give the bytes once"),
        (["store", "p0:7:1:0x1000", "x", "--hex", "00"], "Give the bytes once"),
        (["store", "p0:7:1:0x1000", "--hex", "0"], "pairs of hex digits"),
        (["amo", "p0:7:1:0x1000", "multiply"], "'multiply' is not one of"),
        (["detach", "--frob"], "No such option"),
        (["release", "0"], "positive"),
    ],
)
def test_a_wrong_command_line_is_one_line_with_the_way_out(
    shell: Shell, arguments: list[str], hint: str
) -> None:
    outcome = shell(*arguments)
    assert outcome.code == 64
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith(f"error: {arguments[0]}: ")
    assert hint in outcome.err
    assert f"try: xpmem-emu {arguments[0]} --help" in outcome.err
