"""A large machine: generated, booted, shared, recalled, and a tenth of it lost."""

from pathlib import Path

import pytest

from xpmem_emu.cluster.topology import read_topology
from xpmem_emu.image import convert_image
from xpmem_emu.kernel.calls import MADV_DONTNEED
from xpmem_emu.lab.large_machine import LargeMachine, run_machine
from xpmem_emu.sim.mutations.table import MUTANTS
from xpmem_emu.units import PAGE_SIZE, SECOND
from xpmem_emu.xpmem.ids import unpack_id

BY_DOMAIN = convert_image({"xpc": {"sessions": "domain"}})


def test_a_machine_has_as_many_partitions_to_a_domain_as_128_nodes_hold(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    path.write_text("[machine]\npartitions = 5\nnodes = 50\nimage = 'patient'\n")
    found = read_topology(str(path))
    assert [(one.name, one.partid, one.domain) for one in found] == [
        ("p0", 0, "D0"),
        ("p1", 1, "D0"),
        ("p2", 2, "D1"),
        ("p3", 3, "D1"),
        ("p4", 4, "D2"),
    ]
    assert {one.image for one in found} == {"patient"}
    path.write_text(path.read_text() + "[[partition]]\nname = 'extra'\npartid = 9\n")
    assert [one.name for one in read_topology(str(path))] == ["p0", "p1", "p2", "p3", "p4", "extra"]


def messages(machine: LargeMachine) -> dict[str, float]:
    return {phase.name: phase.messages / len(machine.cluster.partids) for phase in machine.phases}


def test_what_a_partition_sends_does_not_grow_with_the_machine() -> None:
    small, large = (run_machine(size, BY_DOMAIN) for size in (32, 64))
    assert messages(small) == pytest.approx(messages(large), rel=0.05)
    assert small.sessions / 32 == pytest.approx(large.sessions / 64, rel=0.05)
    assert max(len(kernel.xpc.partitions) for kernel in large.cluster.kernels.values()) == 9
    for name in ("recall", "loss noticed"):
        assert large.phase(name).virtual_ns == small.phase(name).virtual_ns < 3 * SECOND


def test_with_sessions_to_everybody_it_does() -> None:
    machine = run_machine(16, convert_image({}))
    assert machine.phase("boot").messages == 16 * 15 * 11


def test_partids_beyond_255_share_and_are_recalled() -> None:
    """Ids and frame numbers of more than 8 bits, near and far: domains of two partitions."""
    cluster = LargeMachine(260, BY_DOMAIN, nodes=64).cluster
    assert cluster.image.xpc.partid_bits == 9
    home, near, far = (cluster.spawn(partid) for partid in (259, 258, 3))
    page = home.mmap(PAGE_SIZE)
    home.store(page, b"of p259")
    segid = home.xpmem_make(page, PAGE_SIZE, 0o600)
    assert unpack_id(segid).partid == 259
    for task in (near, far):
        at = task.xpmem_attach(task.xpmem_get(segid), 0, PAGE_SIZE)
        assert task.load(at, 7) == b"of p259"
        task.store(at, b"by p%03d" % task.partid)
        assert home.load(page, 7) == b"by p%03d" % task.partid
        home.madvise(page, PAGE_SIZE, MADV_DONTNEED)
        assert task.load(at, 7) == bytes(7)
        home.store(page, b"of p259")


def test_it_sees_a_recall_that_leaves_something() -> None:
    with MUTANTS["ack_before_zap"].broken(), pytest.raises(AssertionError):
        run_machine(16, BY_DOMAIN)
