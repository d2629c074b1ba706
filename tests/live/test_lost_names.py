"""Folders of a cluster that are taken away while it runs, and processes that nothing names."""

import errno
import os
import shutil
from collections.abc import Callable

import pytest

from tests.backend.test_processes import alive
from xpmem_emu.backend import processes
from xpmem_emu.cli import doctor
from xpmem_emu.cli.doctor import CheckResult
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.client.blocking import Partition, connect
from xpmem_emu.cluster.liveness import LifeLock
from xpmem_emu.cluster.paths import arena_folder, run_folder
from xpmem_emu.cluster.state import read_state
from xpmem_emu.errors import KernelError

from .conftest import Home, Up, fake_spec, real_spec
from .fake_kernel import FakeKernel
from .keyed import eventually

pytestmark = pytest.mark.live

Refusal = Callable[..., KernelError]
PAGE = 4096


@pytest.mark.parametrize("what", ["state", "run folder", "both folders"])
def test_up_never_starts_a_second_set_beside_partitions_that_live(
    up: Up, refusal: Refusal, home: Home, what: str
) -> None:
    orphan = up(1).partitions[0]
    if what == "state":
        # As a launcher does that dies between starting a process and recording it.
        (run_folder("t") / "cluster.json").unlink()
    else:
        shutil.rmtree(run_folder("t"))
    if what == "both folders":
        shutil.rmtree(arena_folder("t"))
    error = refusal(up, 1)
    assert error.errno == errno.EEXIST
    assert f"partition 0 (pid {orphan.pid})" in error.cause
    assert "--cluster t down" in error.remedy
    assert alive(orphan.pid)
    processes.down("t")
    assert not alive(orphan.pid)
    assert home.leftovers() == []
    up(1)


def states(name: str) -> set[str]:
    """How a partition is with its peers."""
    with connect(name, "t") as partition:
        return {peer["state"] for peer in partition.status()["peers"].values()}


def all_active() -> bool:
    return all(states(name) == {"ACTIVE"} for name in ("p0", "p1", "p2"))


def require_shared(home: Partition, away: str) -> None:
    """A page of `home` is written to from `away`."""
    with connect(away, "t") as other:
        exporter, importer = home.spawn(), other.spawn()
        address = exporter.mmap(PAGE)
        apid = importer.xpmem_get(exporter.xpmem_make(address, PAGE))
        importer.store(importer.xpmem_attach(apid, 0, PAGE), away.encode())
        assert exporter.load(address, len(away)) == away.encode()


def test_partitions_go_on_and_join_again_when_their_arena_folder_is_taken_away(home: Home) -> None:
    processes.up(real_spec("t", 3))
    with connect("p0", "t") as p0:
        shutil.rmtree(arena_folder("t"))
        (names,) = doctor._names(CommandSession(cluster="t"))
        assert names.health is CheckResult.BAD
        for partid in range(3):
            assert f"{arena_folder('t')}/p{partid}.life" in names.detail
        assert names.detail.count(".arena") == 3
        require_shared(p0, "p1")
        processes.hang("t", "p1")
        eventually(lambda: "INACTIVE" in states("p0"))
        processes.resume("t", "p1")
        eventually(all_active)
        require_shared(p0, "p1")
        processes.reboot("t", "p2")
        eventually(all_active)
        require_shared(p0, "p2")
        processes.crash("t", "p1")
        processes.boot("t", "p1")
        eventually(all_active)
        require_shared(p0, "p1")
        eventually(lambda: p0.audit()["quarantined"] == 0)
        assert all_active()


@pytest.mark.parametrize("lost", [False, True])
def test_a_boot_over_a_stopped_process_is_refused_and_changes_nothing(
    up: Up, refusal: Refusal, lost: bool
) -> None:
    before = up(2)
    stopped = before.partition("p1").pid
    processes.hang("t", "p1")
    if lost:
        shutil.rmtree(arena_folder("t"))
        os.mkdir(arena_folder("t"), 0o700)
    for boot in (
        lambda: processes.boot("t", "p1"),
        lambda: processes.boot_one(fake_spec(2), "p1", FakeKernel),
        lambda: LifeLock(arena_folder("t"), 1),
    ):
        error = refusal(boot)
        assert error.errno == errno.EEXIST
        assert f"pid {stopped}" in error.cause
        assert read_state("t") == before
    processes.resume("t", "p1")
    with connect("p1", "t") as p1:
        assert p1.facts.pid == stopped
