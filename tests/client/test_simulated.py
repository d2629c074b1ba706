"""The client library's operations on kernels in this process: the same names, the same answers."""

import inspect

import pytest

from xpmem_emu.client.operations import CHUNK, OperationAnswer, ask
from xpmem_emu.codec import BadMessage
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel import calls
from xpmem_emu.sim.cluster import SimCluster

MEMORY = 2 * CHUNK


def test_a_partition_is_asked_as_a_real_one(cluster: SimCluster) -> None:
    p0 = cluster.partition(0)
    task = p0.spawn("a", uid=5)
    assert [(row["pid"], row["name"]) for row in p0.look("tasks")] == [(task.pid, "a")]
    assert p0.status()["partid"] == 0
    p0.creat("f", 4096)
    p0.pwrite("f", b"written", 4090)
    assert p0.pread("f", 100, 4090) == b"written"
    with pytest.raises(KernelError, match="EEXIST"):
        p0.creat("f")


def test_a_task_does_what_a_real_one_does(cluster: SimCluster) -> None:
    exporter, importer = cluster.spawn(0), cluster.spawn(1)
    at = exporter.mmap(MEMORY)
    data = bytes(range(256)) * (MEMORY // 256)
    exporter.store(at, data)
    apid = importer.xpmem_get(exporter.xpmem_make(at, MEMORY, 0o666))
    there = importer.xpmem_attach(apid, 0, MEMORY)
    assert importer.load(there, MEMORY) == data
    child = exporter.fork()
    moved = child.mremap(at, MEMORY, MEMORY // 2)
    assert child.load(moved, 5) == data[:5]


def test_what_is_of_no_kernel_cannot_be_asked_of_one(cluster: SimCluster) -> None:
    assert not hasattr(cluster.partition(0), "fault_add")


def test_a_method_that_is_made_from_a_call_shows_what_the_call_takes(cluster: SimCluster) -> None:
    task = cluster.spawn(0)
    assert list(inspect.signature(task.munmap).parameters) == ["pid", "address", "length"]
    assert (task.munmap.__name__, task.munmap.__doc__) == ("munmap", calls.Munmap.__doc__)
    with pytest.raises(TypeError, match="length"):
        task.munmap(4096)  # type: ignore[call-arg]


def test_an_answer_of_another_type_is_refused() -> None:
    steps = ask(calls.Fork(1))
    next(steps)
    with pytest.raises(BadMessage, match="int"):
        steps.send([OperationAnswer("no pid")])
