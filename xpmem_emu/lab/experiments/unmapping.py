"""What it takes to unmap memory under every notifier design, for each client and for all."""

from collections.abc import Sequence

from msgspec.structs import replace

from xpmem_emu.image import Bytes, FaultSection, Image, MemorySection, MmSection, NotifierDesign
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Panic
from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word, number
from xpmem_emu.mmu.secondary import devices_of
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import PAGE_SIZE
from xpmem_emu.xpc.events import Sent

_NOBODY, _XPMEM, _GRU, _GUEST, _ALL = "nobody", "XPMEM", "GRU", "KVM", "all three"
_SIZES = (PAGE_SIZE, 2 << 20, 64 << 20)
_TRANSLATIONS = 64
"""That the GRU holds; a flush looks at each."""


class _Unmap:
    """A task of p0 with memory that clients know all of, and then unmaps it."""

    def __init__(self, image: Image, size: int, clients: str) -> None:
        small = replace(image, memory=MemorySection(Bytes(1 << 20), Bytes(1 << 20), Bytes(1 << 20)))
        large = replace(image, memory=replace(small.memory, size=Bytes(size + (1 << 20))))
        self.cluster = SimCluster(2, large, image_of=lambda partid: small if partid else large)
        self.cluster.run_until_active()
        self.size = size
        self.task = task = self.cluster.spawn(0)
        self.at = task.mmap(size)
        importer = self.cluster.spawn(1)
        apid = importer.xpmem_get(task.xpmem_make(self.at, size))
        _touch(importer, importer.xpmem_attach(apid, 0, size), size // PAGE_SIZE, image.faults)
        if clients not in (_XPMEM, _ALL):  # all pages are there now, and stay
            importer.exit()
            task.xpmem_close()
        if clients in (_GRU, _ALL):
            task.gru_attach()
            task.device_load("gru", self.at, 1)
        if clients in (_GUEST, _ALL):
            task.guest_attach()
            task.guest_slot(self.at, size, self.at)
            task.device_load("guest", self.at, 1)

    def run(self, costs: Image) -> LabRow:
        """What was called, flushed and sent, and how long it takes with the costs of the image."""
        cluster, kernel = self.cluster, self.cluster.kernels[0]
        task = kernel.tasks.get(self.task.pid)
        assert task is not None
        mm, devices = task.mm, devices_of(task.mm)
        before = mm.notifiers.calls, sum(each.flushes for each in devices)
        begun_ns, trace = cluster.now_ns, len(cluster.trace)
        call = cluster.submit(0, calls.Munmap(self.task.pid, self.at, self.size))
        cluster.run_until(lambda: call.outcome is not None or kernel.stopped is not None)
        told = mm.notifiers.calls - before[0]
        flushes = sum(each.flushes for each in devices) - before[1]
        sent = sum(isinstance(each.event, Sent) for each in cluster.trace[trace:])
        machine, stopped = costs.machine, kernel.stopped
        took_ns = cluster.now_ns - begun_ns + flushes * machine.flush
        took_ns += sent * (machine.message + machine.interrupt)
        return {
            "calls": told,
            "flushes": flushes,
            "messages": sent,
            "interrupts": sent,
            "took_ns": took_ns,
            "kernel_says": stopped.reason.split(":")[1].strip()
            if isinstance(stopped, Panic)
            else "",
        }


def _touch(task: SimTask, at: int, pages: int, faults: FaultSection) -> None:
    """Fault all pages in, one byte of each window."""
    page = 0
    while page < pages:
        task.load(at + page * PAGE_SIZE, 1)
        page += max(min(2 * page, faults.batch), 1 + faults.after)


def _cases(setting: Setting) -> list[LabRow]:
    sizes = sorted({setting.scaled(size // PAGE_SIZE) * PAGE_SIZE for size in _SIZES})
    return [
        {"unmapped_bytes": size, "clients": clients, "design": design.value}
        for size in sizes
        for clients in (_NOBODY, _GRU, _GUEST, _XPMEM, _ALL)
        for design in NotifierDesign
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    mm = MmSection(NotifierDesign(str(case["design"])))
    mmu = replace(setting.image.mmu, gru_entries=_TRANSLATIONS)
    world = _Unmap(
        replace(setting.image, mm=mm, mmu=mmu), number(case, "unmapped_bytes"), str(case["clients"])
    )
    try:
        return world.run(setting.image)
    finally:
        world.cluster.down()


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    most = max(number(row, "unmapped_bytes") for row in rows)
    found = {(row["clients"], row["design"]): row for row in rows if row["unmapped_bytes"] == most}
    nobody = sum(number(row, "calls") for row in rows if row["clients"] == _NOBODY)
    return Conclusion(
        Word.SUPPORTED,
        f"Of the largest range a GRU has to flush {found[_GRU, 'page']['flushes']:,} times page by "
        f"page, {found[_GRU, 'pages']['flushes']:,} times by page table and "
        f"{found[_GRU, 'deferred']['flushes']} time by range, gathered or not. XPMEM sends "
        f"{found[_XPMEM, 'deferred']['messages']} messages for it, whatever the design, where it "
        f"can work at all. Who has no client is called {nobody} times.",
    )


EXPERIMENT = Experiment(
    place=4,
    question="What does it take to unmap memory, by design, client and size?",
    setup=(
        "The real kernels. A task of p0 unmaps memory all of which is there. A GRU of 64 entries "
        "and a guest translate for it, and a task of p1 has attached it and has all its pages. "
        "Calls, flushes and messages are counted; each message is an interrupt where it arrives. "
        "Took: virtual time, plus flushes, messages and interrupts as the section machine of the "
        "image has them. Munmap holds no lock of a reverse map, so a start may sleep there."
    ),
    claim=(
        "One flush is dear, however small; a call for each entry or each page table multiplies it, "
        "and who has no client must not pay (sources T7, T13)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    curves=Curves(
        x="unmapped_bytes",
        y="took_ns",
        series="design",
        logarithmic=("unmapped_bytes", "took_ns"),
        only={"clients": _GRU},
    ),
)
