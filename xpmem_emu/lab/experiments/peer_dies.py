"""A partition is lost in the middle of an invalidation: who waits, and what becomes of memory."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from msgspec.structs import replace

from xpmem_emu.image import Bytes, Image, MemorySection, Nanoseconds
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word
from xpmem_emu.lab.tables import lab_cell
from xpmem_emu.mm import pte
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import MICROSECOND, MILLISECOND, PAGE_SIZE, SECOND

_NOTHING, _LIMIT, _HEARTBEAT = "nothing", "time limit of 2 s", "heartbeat"
_BOTH, _UNFENCED = "both", "both, no fence"
_CRASHED, _STOPPED, _SLOW = "crashes", "stops for 20 s", "is busy for 1.5 s"
_WAKES_NS = {_STOPPED: 20 * SECOND, _SLOW: 1500 * MILLISECOND}
_END_NS = 60 * SECOND
_NEVER = Nanoseconds(3600 * SECOND)
_PAGES, _TAKEN = 16, 8
_LATE, _THEIRS = b"late", b"mine"
_STEP_NS = 10 * MILLISECOND


def _image(image: Image, found_out_by: str) -> Image:
    memory = MemorySection(Bytes(2 << 20), Bytes(1 << 20), Bytes(1 << 20))
    deadlines, xpc = image.deadlines, image.xpc
    if found_out_by in (_NOTHING, _HEARTBEAT):
        deadlines = replace(deadlines, recall_attempt=_NEVER)
    if found_out_by in (_NOTHING, _LIMIT):
        xpc = replace(xpc, heartbeat_check=_NEVER)
    return replace(image, memory=memory, deadlines=deadlines, xpc=xpc)


class _Loss:
    """p0 exports sixteen pages to p1 and p2, takes eight back, and loses p1 before it answers."""

    def __init__(self, image: Image) -> None:
        self.cluster = cluster = SimCluster(3, image)
        cluster.run_until_active()
        self.exporter, self.stranger = cluster.spawn(0), cluster.spawn(0)
        self.base = self.exporter.mmap(_PAGES * PAGE_SIZE)
        self.segid = self.exporter.xpmem_make(self.base, _PAGES * PAGE_SIZE)
        (self.lost, at), (self.healthy, self.at) = self._importer(1), self._importer(2)
        self.frames = self._frames_in_hand(at)
        self.waits_ns: dict[str, int] = {}
        self.there = 0
        """Where somebody else has taken what frames were free, once that has happened."""
        self.corrupted = 0

    def _importer(self, partid: int) -> tuple[SimTask, int]:
        task = self.cluster.spawn(partid)
        at = task.xpmem_attach(task.xpmem_get(self.segid), 0, _PAGES * PAGE_SIZE)
        task.load(at, _PAGES * PAGE_SIZE)
        return task, at

    def _frames_in_hand(self, at: int) -> list[int]:
        """Frames of p0 that the entries of p1 lead to: a store that is under way reaches them."""
        task = self.cluster.kernels[1].tasks.get(self.lost.pid)
        assert task is not None
        entries = task.mm.page_table.read_range(at // PAGE_SIZE, _PAGES).tolist()
        return [int(entry) >> pte.FRAME_SHIFT & pte.LOCAL_MASK for entry in entries]

    def _begin(self, name: str, partid: int, call: Call, data: bytes = b"") -> None:
        """A call begins now; how long it takes is noted when it ends."""
        begun_ns = self.cluster.now_ns

        def note(_: object) -> None:
            self.waits_ns[name] = self.cluster.now_ns - begun_ns

        self.cluster.submit(partid, call, data, then=note)

    def run(self, fate: str) -> None:
        """All of it, until a minute has passed."""
        cluster = self.cluster
        begun_ns = cluster.now_ns
        lose = cluster.crash if fate == _CRASHED else cluster.hang
        cluster.at(begun_ns + 10 * MICROSECOND, partial(lose, 1))
        taken = _TAKEN * PAGE_SIZE
        self._begin("munmap", 0, calls.Munmap(self.exporter.pid, self.base, taken))
        cluster.run_for(MILLISECOND)
        for name, at in (("page taken", self.at), ("page beside", self.at + taken)):
            self._begin(name, 2, calls.Store(self.healthy.pid, at), b"here")
        wakes_ns = begun_ns + _WAKES_NS.get(fate, _END_NS)
        while cluster.now_ns < wakes_ns:
            cluster.run_for(min(_STEP_NS, wakes_ns - cluster.now_ns))
            if "munmap" in self.waits_ns and not self.there:
                self._fill()
        if fate != _CRASHED:
            self._wake()
            cluster.run_for(begun_ns + _END_NS - cluster.now_ns)

    def _fill(self) -> None:
        """Somebody else gets whatever frames of p0 are free."""
        self.there = self.stranger.mmap(_PAGES * PAGE_SIZE)
        self.stranger.store(self.there, _THEIRS * (_PAGES * PAGE_SIZE // len(_THEIRS)))

    def _wake(self) -> None:
        """The lost process goes on, first of all with the stores that it was in."""
        given_up = self.cluster.kernels[0].xpc.incarnation(1) is None
        kept = self._words(self.exporter, self.base, range(_TAKEN, _PAGES))
        arena = self.cluster.arena(0, 1)
        for frame in self.frames:
            arena[frame * PAGE_SIZE : frame * PAGE_SIZE + len(_LATE)] = _LATE
        if self.there:
            self.corrupted += self._words(self.stranger, self.there, range(_PAGES)).count(_LATE)
        if given_up:
            changed = self._words(self.exporter, self.base, range(_TAKEN, _PAGES))
            self.corrupted += sum(a != b for a, b in zip(kept, changed, strict=True))
        self.cluster.resume(1)

    def _words(self, task: SimTask, base: int, pages: range) -> list[bytes]:
        return [task.load(base + page * PAGE_SIZE, len(_LATE)) for page in pages]


def _cases(_setting: Setting) -> list[LabRow]:
    return [
        {"the_peer": fate, "found_out_by": means}
        for fate in (_CRASHED, _STOPPED, _SLOW)
        for means in (_NOTHING, _LIMIT, _HEARTBEAT, _BOTH, _UNFENCED)
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    means = str(case["found_out_by"])
    with ExitStack() as broken:
        for mutant in ("no_quarantine", "no_migration") if means == _UNFENCED else ():
            broken.enter_context(mutated(mutant))
        loss = _Loss(_image(setting.image, means))
        loss.run(str(case["the_peer"]))
        loss.cluster.down()
    return {
        "munmap_waits_ns": loss.waits_ns.get("munmap", _END_NS),
        "fault_there_waits_ns": loss.waits_ns.get("page taken", _END_NS),
        "fault_beside_waits_ns": loss.waits_ns.get("page beside", _END_NS),
        "pages_corrupted": loss.corrupted,
    }


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    found = {(row["the_peer"], row["found_out_by"]): row for row in rows}

    def munmap(fate: str, means: str) -> str:
        return lab_cell("munmap_waits_ns", found[fate, means]["munmap_waits_ns"])

    return Conclusion(
        Word.SUPPORTED,
        f"With nothing to find it out munmap waits for all of {munmap(_CRASHED, _NOTHING)}, and "
        f"who touches one of its pages until its own request is given up; who touches a page "
        f"beside does not wait. A time limit ends that after {munmap(_CRASHED, _LIMIT)}, a "
        f"heartbeat after {munmap(_CRASHED, _HEARTBEAT)}. Neither can tell a dead "
        f"peer from a busy one: the heartbeat gives up one that was busy for 1.5 s, the limit does "
        f"not. That is what the fence is for. Without it a peer that wakes after it was given "
        f"up changes "
        f"{found[_STOPPED, _UNFENCED]['pages_corrupted']} pages of others, with it "
        f"{found[_STOPPED, _BOTH]['pages_corrupted']}, after 20 s as after 1.5 s.",
    )


EXPERIMENT = Experiment(
    place=7,
    question="A partition is lost while it is told to let pages go: who waits, who is corrupted?",
    setup=(
        "The real kernels in virtual time, deadlines of the image. p0 unmaps eight of sixteen "
        "pages that p1 and p2 have; p1 is lost before it answers. A task of p2 then stores into a "
        "page that goes and into one that stays. As soon as munmap returns somebody on p0 takes "
        "whatever frames are free. Who was stopped or busy goes on with the stores that it was in, "
        "past every page table. After 60 s all is over, whoever still waits. *Nothing*: limits of "
        "an hour. *No fence*: two mutants of the simulator, no_quarantine and no_migration."
    ),
    claim=(
        "The sender cannot go on before the invalidation is complete, and a time limit is hard to "
        "choose, for the other side may just have much to do (sources T19)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    curves=Curves(
        x="found_out_by", y="munmap_waits_ns", series="the_peer", logarithmic=("munmap_waits_ns",)
    ),
)
