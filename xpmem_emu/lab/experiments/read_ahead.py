"""How many pages a fault should bring, on the real kernels."""

from collections.abc import Sequence
from random import Random

from msgspec.structs import replace

from xpmem_emu.image import FaultSection, Image
from xpmem_emu.kernel.calls import MADV_DONTNEED
from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word
from xpmem_emu.lab.tables import lab_cell
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import PAGE_SIZE
from xpmem_emu.xpmem.events import FaultServe, Invalidated

_ONE, _AROUND, _ADAPTIVE = "the page alone", "16 before, 32 after", "and more if sequential"
_WINDOWS = {
    _ONE: FaultSection(after=0, before=0, batch=1),
    _AROUND: FaultSection(after=32, before=16, batch=1),
    _ADAPTIVE: FaultSection(after=32, before=16, batch=1024),
}
_SEQUENTIAL, _STRIDED, _RANDOM, _SHARED = "sequential", "every 64th", "random", "false sharing"
_TOUCHED, _STRIDE = 512, 64


class _Sharing:
    """An importer that touches pages of an exporter."""

    def __init__(self, image: Image, window: str, pages: int) -> None:
        self.cluster = SimCluster(2, replace(image, faults=_WINDOWS[window]))
        self.cluster.run_until_active()
        self.exporter, self.importer = self.cluster.spawn(0), self.cluster.spawn(1)
        self.base = self.exporter.mmap(pages * PAGE_SIZE)
        self.segid = self.exporter.xpmem_make(self.base, pages * PAGE_SIZE)
        apid = self.importer.xpmem_get(self.segid)
        self.at = self.importer.xpmem_attach(apid, 0, pages * PAGE_SIZE)

    def touch(self, page: int) -> None:
        """The importer loads from a page."""
        _load(self.importer, self.at, page)

    def change(self, page: int) -> None:
        """The exporter gives a page up and takes a new one in its place."""
        self.exporter.madvise(self.base + page * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED)
        _load(self.exporter, self.base, page)


def _load(task: SimTask, base: int, page: int) -> None:
    task.load(base + page * PAGE_SIZE, 8)


def _touched(pattern: str, count: int, seed: int) -> list[int]:
    match pattern:
        case "every 64th":
            return [n * _STRIDE for n in range(count)]
        case "random":
            return Random(seed).sample(range(count * _STRIDE), count)
        case "false sharing":
            return [n * 2 for n in range(count)]
        case _:
            return list(range(count))


def _cases(_setting: Setting) -> list[LabRow]:
    return [
        {"access": pattern, "a_fault_brings": window}
        for pattern in (_SEQUENTIAL, _STRIDED, _RANDOM, _SHARED)
        for window in _WINDOWS
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    count = setting.scaled(_TOUCHED, 16)
    sharing = _Sharing(setting.image, str(case["a_fault_brings"]), count * _STRIDE)
    cluster = sharing.cluster
    begun, begun_ns = len(cluster.trace), cluster.now_ns
    for page in _touched(str(case["access"]), count, setting.seed):
        sharing.touch(page)
        if case["access"] == _SHARED:
            sharing.change(page + 1)
    took_ns = cluster.now_ns - begun_ns
    events = [record.event for record in cluster.trace[begun:]]
    cluster.down()
    served = [event for event in events if isinstance(event, FaultServe)]
    return {
        "touched": count,
        "faults": len(served),
        "pages_brought": sum(event.pages for event in served),
        "recalls": sum(isinstance(event, Invalidated) for event in events),
        "took_ns": took_ns,
    }


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    found = {(row["access"], row["a_fault_brings"]): row for row in rows}

    def shown(access: str, window: str, column: str) -> str:
        return lab_cell(column, found[access, window][column])

    return Conclusion(
        Word.BOTH,
        f"Sequential access takes {shown(_SEQUENTIAL, _ONE, 'took_ns')} page by page, "
        f"{shown(_SEQUENTIAL, _AROUND, 'took_ns')} with a window, and "
        f"{shown(_SEQUENTIAL, _ADAPTIVE, 'took_ns')} with one that grows. Touches that are far "
        f"apart gain nothing by it and bring {shown(_STRIDED, _AROUND, 'pages_brought')} pages for "
        f"{shown(_STRIDED, _AROUND, 'touched')}; random ones "
        f"{shown(_RANDOM, _AROUND, 'pages_brought')}. Where neighbours change all the time, what "
        f"was brought beside is recalled: {shown(_SHARED, _AROUND, 'recalls')} recalls instead of "
        f"{shown(_SHARED, _ONE, 'recalls')}, and nothing is gained: "
        f"{shown(_SHARED, _AROUND, 'took_ns')} and {shown(_SHARED, _ONE, 'took_ns')}.",
    )


EXPERIMENT = Experiment(
    place=10,
    question="How many pages should a fault bring?",
    setup=(
        "The real kernels in virtual time, a message 20 us. An importer touches pages of an "
        "exporter: one after the other, every 64th, any of them, or every second one while the "
        "exporter gives up and takes anew the page beside it. The window is that of the image "
        "(`faults`): none, the 16 before and 32 after of the driver in use, or these and up to "
        "1,024 where what was touched before is right behind."
    ),
    claim=(
        "The driver of 2008 takes exactly one page, the one in use 16 before and 32 after (sources "
        "1.10); a recall costs the same for a page that was never touched (sources T12)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    curves=Curves(x="access", y="took_ns", series="a_fault_brings"),
)
