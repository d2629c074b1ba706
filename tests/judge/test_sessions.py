"""What the judges believe of sessions: which there are, and which ended when."""

from xpmem_emu.judge.sessions import Sessions
from xpmem_emu.kernel.events import KernelBoot
from xpmem_emu.xpc.events import PartitionChange


def test_the_sessions_of_a_process_end_when_another_one_boots_in_its_place() -> None:
    """A stopped importer wakes, and loads what it has mapped of the memory of a home that was
    booted anew meanwhile. Nobody is bound by what it sees there (chaos-private, seed 1026)."""
    sessions = Sessions()
    sessions.changed(1, PartitionChange(0, "ACTIVE", "", "", 1 << 16), moment=5)
    assert not sessions.gave_up(1, 0, since=6, until=20)
    sessions.booted(1, KernelBoot(2, "sim", 64), moment=9)
    assert not sessions.active(1, 0)
    assert sessions.gave_up(1, 0, since=6, until=20)
    assert not sessions.gave_up(1, 0, since=10, until=20)
