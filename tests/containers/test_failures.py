"""Containers that are killed, frozen, restarted and cut off: what the others know, and when.

A peer is proven gone by its life lock alone, and that must hold across containers, where a pid
says nothing: a killed container is noticed and its frames return, a frozen one never counts as
gone and keeps its frames in quarantine.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.containers.conftest import NAMES, Project, read, stay_healthy
from xpmem_emu.backend import containers
from xpmem_emu.client.blocking import Partition

MEBIBYTE = 1 << 20
PAGES = MEBIBYTE // 4096
NOTICE_S = 20


def within(condition: Callable[[], bool], events: Iterator[object]) -> None:
    """Wait for `condition`, looking again at each event of the partition that must notice."""
    deadline = time.monotonic() + NOTICE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {NOTICE_S} s"
        next(events)


def state_of(partition: Partition, peer: int) -> str:
    return str(partition.status()["peers"][str(peer)]["state"])


@contextmanager
def held_by_p1(project: Project) -> Iterator[Partition]:
    """p0, whose memory p1 may write."""
    with project.connect("p0") as p0:
        exporter = p0.spawn()
        segid = exporter.xpmem_make(exporter.mmap(MEBIBYTE), MEBIBYTE)
        with project.connect("p1") as p1:
            importer = p1.spawn()
            at = importer.xpmem_attach(importer.xpmem_get(segid), 0, MEBIBYTE)
            importer.store(at, b"w" * MEBIBYTE)
            yield p0


def test_a_killed_container_is_proven_gone_and_its_frames_return(whole: Project) -> None:
    with held_by_p1(whole) as p0, p0.events() as events:
        assert p0.audit()["pins"] == PAGES
        containers.crash(whole.cluster, "p1")
        within(lambda: state_of(p0, 1) == "INACTIVE", events)
        within(lambda: p0.audit()["quarantined"] == 0, events)
        assert p0.audit()["pins"] == 0
        assert state_of(p0, 2) == "ACTIVE"


def test_a_killed_container_makes_no_other_one_unhealthy(whole: Project) -> None:
    containers.crash(whole.cluster, "p0")
    stay_healthy([read(whole.inspect(name), "Id") for name in NAMES if name != "p0"])
    assert "not with all" in whole.shell("status").stdout


def test_a_frozen_container_is_never_taken_for_gone(whole: Project) -> None:
    with held_by_p1(whole) as p0, p0.events() as events:
        containers.hang(whole.cluster, "p1")
        try:
            within(lambda: p0.audit()["quarantined"] == PAGES, events)
            begun = time.monotonic()
            while time.monotonic() - begun < 3:
                assert p0.audit()["quarantined"] == PAGES
        finally:
            containers.resume(whole.cluster, "p1")
        within(lambda: p0.audit()["quarantined"] == 0, events)
        within(lambda: state_of(p0, 1) == "ACTIVE", events)


def test_a_restarted_container_is_a_later_boot(whole: Project) -> None:
    for name in ("p1", "p3"):
        with whole.connect(name) as before:
            boot = before.facts.boot
        assert whole.shell("reboot", name).returncode == 0
        with whole.connect(name) as after:
            assert after.facts.boot > boot


def test_a_cut_network_is_noticed_and_mended_while_consoles_answer(whole: Project) -> None:
    with whole.connect("p0") as p0, whole.connect("p3") as p3, p0.events() as events:
        containers.cut(whole.cluster, "p3")
        try:
            within(lambda: state_of(p0, 3) == "INACTIVE", events)
            assert state_of(p0, 1) == "ACTIVE"
            assert p3.audit()["tasks"] == 0
        finally:
            containers.mend(whole.cluster, "p3")
        within(lambda: state_of(p0, 3) == "ACTIVE", events)


def test_a_launcher_in_another_container_takes_nothing_away(whole: Project) -> None:
    said = whole.compose(
        "run",
        "--rm",
        "-T",
        "--no-deps",
        "--volume",
        f"{whole.name}_arenas:/arenas",
        "--entrypoint",
        "sh",
        "console",
        "-c",
        "XPMEM_EMU_TOPOLOGY= xpmem-emu up -n 2 2>&1 || true",
    )
    assert "belongs to a partition of another container" in said
    assert whole.shell("status").returncode == 0
