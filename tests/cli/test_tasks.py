"""task and vm: every command reaches its call with the arguments meant."""

import pytest

from xpmem_emu.kernel import calls

from .conftest import Shell


@pytest.fixture
def memory(shell: Shell) -> str:
    return shell.ok("task", "mmap", shell.ok("task", "spawn", "--on", "p0"), "16K")


def test_a_task_is_started_listed_and_killed(shell: Shell) -> None:
    name = shell.ok("task", "spawn", "--on", "p2", "--name", "rank0")
    assert name == "p2:7:1"
    assert "rank0" in shell.ok("task", "ls")
    assert "rank0" not in shell.ok("task", "ls", "--on", "p0-1")
    shell.ok("task", "kill", name)
    assert "rank0" not in shell.ok("task", "ls")


def test_a_forked_task_has_a_name_of_its_own(shell: Shell) -> None:
    assert shell.ok("task", "fork", shell.ok("task", "spawn", "--on", "p0")) == "p0:7:2"


def test_a_task_that_is_not_there_is_refused(shell: Shell) -> None:
    outcome = shell("task", "kill", "p0:7:9")
    assert outcome.code == 1
    assert outcome.err == "error: task kill (ESRCH): no task 9; try: xpmem-emu task ls\n"


def test_mmap_flags_follow_from_what_is_asked_for(shell: Shell) -> None:
    owner = shell.ok("task", "spawn", "--on", "p0")
    shell.ok("task", "mmap", owner, "4K", "--file", "data", "--offset", "8K", "--prot", "r")
    shell.ok("task", "mmap", owner, "4K", "--uncached", "--at", "0x10000")
    shell.ok("task", "mmap", owner, "4K", "--mspec")
    private = calls.MAP_PRIVATE | calls.MAP_ANONYMOUS
    mspec = calls.MAP_SHARED | calls.MAP_ANONYMOUS | calls.MAP_MSPEC
    assert shell.emulator.running["p0"].tasks[1].log == [
        ("mmap", 4096, 1, calls.MAP_SHARED, 0, "data", 8192),
        ("mmap", 4096, 3, private | calls.MAP_FIXED | calls.MAP_UNCACHED, 0x10000, "", 0),
        ("mmap", 4096, 3, mspec, 0, "", 0),
    ]


@pytest.mark.parametrize(
    ("command", "rest", "call"),
    [
        ("munmap", ["4K"], ("munmap", 4096)),
        ("mprotect", ["4K", "r"], ("mprotect", 4096, calls.PROT_READ)),
        ("madvise", ["8K", "pageout"], ("madvise", 8192, calls.MADV_PAGEOUT)),
        ("mremap", ["4K", "8K"], ("mremap", 4096, 8192, calls.MREMAP_MAYMOVE, 0)),
    ],
)
def test_memory_calls_are_made_where_the_handle_points(
    shell: Shell, memory: str, command: str, rest: list[str], call: tuple[object, ...]
) -> None:
    shell.ok("task", command, f"{memory}+4K", *rest)
    name, *arguments = call
    place = int(memory.rpartition(":")[2], 16) + 4096
    assert shell.emulator.running["p0"].tasks[1].log[-1] == (name, place, *arguments)


def test_mremap_prints_the_new_handle(shell: Shell, memory: str) -> None:
    address = int(memory.rpartition(":")[2], 16)
    assert shell.ok("task", "mremap", memory, "4K", "8K") == f"p0:7:1:{address + 0x1000:#x}"


def test_what_the_kernel_does_by_itself(shell: Shell, memory: str) -> None:
    assert shell.ok("vm", "migrate", memory, "16K") == "4"
    assert shell.ok("vm", "reclaim", "p0", "--pages", "8") == "3"
    shell.ok("vm", "reclaim", "p0", "--of", memory, "--size", "4K")
    shell.ok("vm", "creat", "p0", "data", "1M")
    shell.ok("vm", "truncate", "p0", "data", "4K")
    assert shell.ok("vm", "writeback", "p0", "data") == "3"
    shell.ok("vm", "unlink", "p0", "data")
    address = int(memory.rpartition(":")[2], 16)
    assert shell.emulator.running["p0"].log == [
        ("reclaim", 8, 0, 0, 0),
        ("reclaim", 64, 1, address, 4096),
        ("creat", "data", 1 << 20),
        ("truncate", "data", 4096),
        ("writeback", "data"),
        ("unlink", "data"),
    ]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["task", "spawn"], "Missing option '--on'"),
        (["task", "kill", "12"], "write it like P:BOOT:PID"),
        (["task", "kill", "p0:7:1", "--signal", "HUP"], "KILL"),
        (["task", "mprotect", "p0:7:1:0x1000", "4K", "rwx"], "none, r, rw"),
        (["task", "madvise", "p0:7:1:0x1000", "4K", "willneed"], "'dontneed'"),
        (["vm", "reclaim", "p1", "--of", "p0:7:1:0x1000", "--size", "4K"], "p1:BOOT:PID:0xADDR"),
        (["vm", "frob"], "No such command"),
    ],
)
def test_a_wrong_command_line_is_one_line(shell: Shell, arguments: list[str], hint: str) -> None:
    outcome = shell(*arguments)
    assert outcome.code == 64
    assert outcome.err.count("\n") == 1
    assert hint in outcome.err


def test_devices_are_attached_used_and_detached(shell: Shell, memory: str) -> None:
    task, _, address = memory.rpartition(":")
    at = int(address, 16)
    shell.ok("device", "gru", task)
    shell.ok("device", "guest", task, "--references")
    shell.ok("device", "slot", f"{memory}+4K", "8K", "0x40000000")
    shell.ok("device", "mirror", memory, "16K")
    shell.ok("device", "store", f"{memory}+4K", "mirror", "hello")
    assert shell.ok("device", "load", f"{task}:0x40000000", "guest", "4", "--text") == "from"
    assert shell.ok("device", "load", memory, "gru", "2") == b"fr".hex()
    shell.ok("device", "detach", task, "gru")
    assert shell.emulator.running["p0"].tasks[1].log[1:] == [
        ("gru_attach",),
        ("guest_attach", True),
        ("guest_slot", 0x4000_0000, 8192, at + 4096),
        ("mirror_attach", at, 16384),
        ("device_store", "mirror", at + 4096, b"hello"),
        ("device_load", "guest", 0x4000_0000, 4),
        ("device_load", "gru", at, 2),
        ("device_detach", "gru"),
    ]
    assert shell("device", "detach", task, "bte").code == 64
