"""Every call of the kernel, with every failpoint on its way failing once: no leak, no panic, and
an errno that fits."""

from collections.abc import Callable, Iterable
from typing import get_args

import pytest
from msgspec.structs import replace

from tests.clusters import SMALL
from tests.failpoints.fail_nth import Trial, sweep
from tests.xpmem.world import AT, PAGE, PAGES, World
from xpmem_emu.image import DeadlineSection, ExtensionSection, Image, Nanoseconds, XpcSection
from xpmem_emu.kernel import calls, device_calls
from xpmem_emu.kernel.calls import AnyCall, Call
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import MILLISECOND

SIZE = PAGES * PAGE
Act = Callable[["Scene"], object]


class Scene(World):
    """The usual cast with a file, a word of uncached memory, and pages held by the importer."""

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self.apid = self.permit()
        self.at = self.importer.xpmem_attach(self.apid, 0, SIZE, AT)
        self.importer.load(self.at, SIZE)
        self.on(0, calls.Creat("f", 4 * PAGE))
        self.file = self.exporter.mmap(4 * PAGE, flags=calls.MAP_SHARED, file="f")
        self.exporter.store(self.file, b"dirty")
        uncached = calls.MAP_SHARED | calls.MAP_ANONYMOUS | calls.MAP_UNCACHED
        self.word = self.exporter.mmap(PAGE, flags=uncached)
        words = int(str(self.us(calls.XpmemMake, self.word, PAGE, 1, 0o666, "words")))
        self.far_word = self.importer.xpmem_attach(self.importer.xpmem_get(words), 0, PAGE)

    def on(self, partid: int, call: Call, bulk: bytes = b"") -> object:
        return self.cluster.call(partid, call, bulk).value

    def us(self, kind: type[Call], *details: object) -> object:
        """A call of the exporter."""
        return self.on(0, kind(self.exporter.pid, *details))

    def them(self, kind: type[Call], *details: object) -> object:
        """A call of the importer."""
        return self.on(1, kind(self.importer.pid, *details))


def ms(count: int) -> Nanoseconds:
    return Nanoseconds(count * MILLISECOND)


QUICK = Image(
    memory=SMALL.memory,
    xpc=XpcSection(
        discovery_interval=ms(25),
        heartbeat_interval=ms(20),
        heartbeat_check=ms(80),
        disengage_limit=ms(100),
        control_attempt=ms(20),
    ),
    deadlines=DeadlineSection(fault_attempt=ms(20), fault_wait_max=ms(200), recall_attempt=ms(30)),
    extensions=ExtensionSection(segment_names=True),
)
"""Short deadlines: a trial waits for all of them."""


def build() -> tuple[SimCluster, Scene]:
    cluster = SimCluster(2, QUICK)
    cluster.run_until_active()
    return cluster, Scene(cluster)


def build_apart() -> tuple[SimCluster, Scene]:
    """The same with the importer in a coherence domain of its own."""
    images = [QUICK, replace(QUICK, domain="B")]
    cluster = SimCluster(2, QUICK, image_of=images.__getitem__)
    cluster.run_until_active()
    return cluster, Scene(cluster)


def fresh_load(scene: Scene) -> object:
    """A load that needs a fault, of the importer."""
    task = SimTask(scene.cluster, 1, scene.importer.pid)
    scene.us(calls.Madvise, scene.base, SIZE, calls.MADV_DONTNEED)
    return task.load(scene.at, SIZE)


def guest(scene: Scene, size: int) -> object:
    """A guest with the exporter's memory, which stores that much there."""
    scene.us(device_calls.GuestAttach, True)
    scene.us(device_calls.GuestSlot, 0, SIZE, scene.base)
    return scene.on(0, device_calls.DeviceStore(scene.exporter.pid, "guest", 0), bytes(size))


def mirrored(scene: Scene) -> object:
    """A load through a mirror that needs a fault, of the importer."""
    scene.us(calls.Madvise, scene.base, SIZE, calls.MADV_DONTNEED)
    scene.them(device_calls.MirrorAttach, scene.at, SIZE)
    return scene.them(device_calls.DeviceLoad, "mirror", scene.at, SIZE)


CASES: dict[type[Call], Act] = {
    calls.Spawn: lambda s: s.on(0, calls.Spawn()),
    calls.Fork: lambda s: s.us(calls.Fork),
    calls.Exec: lambda s: s.us(calls.Exec),
    calls.Exit: lambda s: s.us(calls.Exit),
    calls.Kill: lambda s: s.them(calls.Kill),
    calls.Setuid: lambda s: s.us(calls.Setuid, 5),
    calls.Mmap: lambda s: s.us(calls.Mmap, PAGE, 3, calls.MAP_SHARED | calls.MAP_ANONYMOUS),
    calls.Munmap: lambda s: s.us(calls.Munmap, s.base, SIZE),
    calls.Mprotect: lambda s: s.us(calls.Mprotect, s.base + PAGE, PAGE, calls.PROT_READ),
    calls.Madvise: lambda s: s.us(calls.Madvise, s.base, SIZE, calls.MADV_DONTNEED),
    calls.Mremap: lambda s: s.us(calls.Mremap, s.base, SIZE, 2 * SIZE),
    calls.Load: fresh_load,
    calls.Store: lambda s: s.on(0, calls.Store(s.exporter.pid, s.file + PAGE), b"x" * PAGE),
    calls.AtomicOp: lambda s: s.them(calls.AtomicOp, s.far_word, "add", 1),
    calls.ZapPageRange: lambda s: s.us(calls.ZapPageRange, s.base, SIZE),
    calls.Creat: lambda s: s.on(0, calls.Creat("g", PAGE)),
    calls.Unlink: lambda s: s.on(0, calls.Unlink("f")),
    calls.Pwrite: lambda s: s.on(0, calls.Pwrite("f", 3 * PAGE), b"y" * 2 * PAGE),
    calls.Pread: lambda s: s.on(0, calls.Pread("f", 0, PAGE)),
    calls.Truncate: lambda s: s.on(0, calls.Truncate("f", PAGE)),
    calls.Writeback: lambda s: s.on(0, calls.Writeback("f")),
    calls.Reclaim: lambda s: s.on(0, calls.Reclaim(4, s.exporter.pid, s.base, SIZE)),
    calls.Migrate: lambda s: s.us(calls.Migrate, s.base, SIZE),
    calls.XpmemVersion: lambda s: s.on(0, calls.XpmemVersion()),
    calls.XpmemOpen: lambda s: s.us(calls.XpmemOpen),
    calls.XpmemClose: lambda s: s.us(calls.XpmemClose),
    calls.XpmemMake: lambda s: s.us(calls.XpmemMake, s.base, SIZE),
    calls.XpmemRemove: lambda s: s.us(calls.XpmemRemove, s.segid),
    calls.XpmemGet: lambda s: s.them(calls.XpmemGet, s.segid),
    calls.XpmemRelease: lambda s: s.them(calls.XpmemRelease, s.apid),
    calls.XpmemAttach: lambda s: s.them(calls.XpmemAttach, s.apid, 0, SIZE),
    calls.XpmemDetach: lambda s: s.them(calls.XpmemDetach, AT),
    calls.XpmemCopy: lambda s: s.them(calls.XpmemCopy, s.apid, 0, s.apid, 4 * PAGE, PAGE),
    calls.XpmemFind: lambda s: s.on(1, calls.XpmemFind("words")),
    calls.XpmemForkBegin: lambda s: s.us(calls.XpmemForkBegin),
    calls.XpmemForkEnd: lambda s: (s.us(calls.XpmemForkBegin), s.us(calls.XpmemForkEnd)),
    calls.XpmemTunable: lambda s: s.on(0, calls.XpmemTunable("faults_after", 8)),
    device_calls.GruAttach: lambda s: s.us(device_calls.GruAttach),
    device_calls.GuestAttach: lambda s: s.us(device_calls.GuestAttach),
    device_calls.GuestSlot: lambda s: guest(s, 0),
    device_calls.MirrorAttach: lambda s: s.them(device_calls.MirrorAttach, s.at, SIZE),
    device_calls.DeviceDetach: lambda s: (guest(s, 0), s.us(device_calls.DeviceDetach, "guest")),
    device_calls.DeviceLoad: lambda s: mirrored(s),
    device_calls.DeviceStore: lambda s: guest(s, SIZE),
    device_calls.BteCopy: lambda s: s.them(device_calls.BteCopy, s.at, s.at + 4 * PAGE, PAGE),
    calls.Look: lambda s: s.on(0, calls.Look("pins")),
    calls.Describe: lambda s: s.on(0, calls.Describe("p1")),
    calls.Pagetable: lambda s: s.us(calls.Pagetable, s.base),
    calls.Status: lambda s: s.on(0, calls.Status()),
    calls.Audit: lambda s: s.on(0, calls.Audit()),
    calls.Shutdown: lambda s: s.on(0, calls.Shutdown()),
}

APART: dict[type[Call], Act] = {
    kind: CASES[kind]
    for kind in (
        calls.Load,
        calls.AtomicOp,
        calls.Exit,
        calls.Munmap,
        calls.XpmemAttach,
        calls.XpmemDetach,
        calls.XpmemRelease,
        calls.XpmemRemove,
        calls.XpmemCopy,
        device_calls.BteCopy,
    )
} | {calls.Store: lambda s: s.on(1, calls.Store(s.importer.pid, s.at + PAGE - 4), b"x" * 9)}
"""What is another matter when the home can be reached by message only."""
GIVES_UP: dict[type[Call], str] = {device_calls.BteCopy: "answered ETIMEDOUT"}
"""What is right of this call alone: the engine waits so long and no longer."""


def test_no_call_is_left_out() -> None:
    assert set(get_args(AnyCall)) == set(CASES)


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_every_failure_on_the_way_of_a_call_is_survived(kind: type[Call]) -> None:
    assert wrong(kind, sweep(build, CASES[kind])) == []


@pytest.mark.parametrize("kind", APART, ids=lambda kind: kind.__name__)
def test_every_failure_on_the_way_to_another_domain_is_survived(kind: type[Call]) -> None:
    assert wrong(kind, sweep(build_apart, APART[kind])) == []


def wrong(kind: type[Call], swept: Iterable[Trial]) -> list[str]:
    """Those that went wrong. The first begins where every call does; the last fails nothing."""
    trials = list(swept)
    assert trials[0].point == "kernel.call.begin"
    assert trials[-1].outcome == "ok"
    return [str(trial) for trial in trials if trial.wrong not in {"", GIVES_UP.get(kind)}]
