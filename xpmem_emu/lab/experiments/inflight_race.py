"""The race of 2008 on the real kernels, with the list of active faults and without it."""

from collections.abc import Sequence
from functools import partial
from random import Random

from xpmem_emu.errors import Signalled
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word, number
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.explore.world import small_image
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.units import MICROSECOND, PAGE_SIZE
from xpmem_emu.xpmem.events import FaultServe, Invalidated

_WITH, _WITHOUT = "marks active faults", "marks nothing"
_MUTANTS = {_WITH: "", _WITHOUT: "install_invalid"}
_SEEDS, _CHUNK = 10_000, 250
_LATENCY_NS = (5 * MICROSECOND, 100 * MICROSECOND)
_WITHIN_NS = 150 * MICROSECOND
_STRANGERS = b"stranger"


class _Race:
    """A task of p1 touches a page that its exporter on p0 unmaps; messages take their time."""

    def __init__(self, seed: str) -> None:
        random = Random(seed)
        self.cluster = cluster = SimCluster(2, small_image())
        cluster.run_until_active()
        exporter, self.stranger = cluster.spawn(0), cluster.spawn(0)
        self.importer = importer = cluster.spawn(1)
        base = exporter.mmap(PAGE_SIZE)
        exporter.store(base, b"exporter")
        apid = importer.xpmem_get(exporter.xpmem_make(base, PAGE_SIZE))
        self.at = importer.xpmem_attach(apid, 0, PAGE_SIZE)
        cluster.latency_ns = lambda src, dst: random.randint(*_LATENCY_NS)
        self.begun = len(cluster.trace)
        touch = calls.Load(importer.pid, self.at, 8)
        unmap = calls.Munmap(exporter.pid, base, PAGE_SIZE)
        for partid, call in ((1, touch), (0, unmap)):
            when_ns = cluster.now_ns + random.randrange(_WITHIN_NS)
            cluster.at(when_ns, partial(self._begin, partid, call))
        cluster.run_for(_WITHIN_NS)
        cluster.run_until(lambda: not cluster.outstanding)

    def _begin(self, partid: int, call: Call) -> None:
        self.cluster.submit(partid, call)

    def crossed(self) -> bool:
        """Whether the page was served, and the invalidation of it found nothing to clear."""
        events = [record.event for record in self.cluster.trace[self.begun :]]
        served = any(isinstance(event, FaultServe) for event in events)
        found = [event.ptes for event in events if isinstance(event, Invalidated)]
        return served and found == [0]

    def reached(self) -> bytes:
        """What the importer sees now that munmap has returned and the frame is somebody else's;
        nothing, where it is SIGBUS as it should be."""
        self.stranger.store(self.stranger.mmap(PAGE_SIZE), _STRANGERS)
        try:
            return self.importer.load(self.at, len(_STRANGERS))
        except Signalled:
            return b""


def _cases(setting: Setting) -> list[LabRow]:
    seeds = setting.scaled(_SEEDS, 40)
    return [
        {"invalidation": design, "first": first, "seeds": min(_CHUNK, seeds - first)}
        for design in _MUTANTS
        for first in range(0, seeds, _CHUNK)
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    crossed = stale = strangers = 0
    first = number(case, "first")
    with mutated(_MUTANTS[str(case["invalidation"])]):
        for seed in range(first, first + number(case, "seeds")):
            race = _Race(f"{setting.seed}/{seed}")
            crossed += race.crossed()
            seen = race.reached()
            stale += bool(seen)
            strangers += seen == _STRANGERS
            race.cluster.down()
    return {"answer_crossed": crossed, "stale_reached": stale, "of_a_stranger": strangers}


def _summed(rows: Sequence[LabRow]) -> list[LabRow]:
    sums: dict[str, dict[str, int]] = {}
    for row in rows:
        total = sums.setdefault(str(row["invalidation"]), {})
        for column in ("seeds", "answer_crossed", "stale_reached", "of_a_stranger"):
            total[column] = total.get(column, 0) + number(row, column)
    return [{"invalidation": design, **total} for design, total in sums.items()]


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    found = {str(row["invalidation"]): row for row in rows}
    kept, broken = found[_WITH], found[_WITHOUT]
    word = Word.REFUTED if kept["stale_reached"] else Word.SUPPORTED
    return Conclusion(
        word,
        f"In {broken['answer_crossed']:,} of {broken['seeds']:,} seeds an invalidation crossed the "
        f"answer. Where it marks nothing the importer then reached memory that munmap had taken "
        f"away in {broken['stale_reached']:,}, a stranger's in {broken['of_a_stranger']:,}; where "
        f"it marks active faults in {kept['stale_reached']:,} of {kept['seeds']:,}, though answers "
        f"were crossed in {kept['answer_crossed']:,}.",
    )


EXPERIMENT = Experiment(
    place=1,
    question="Does an importer reach a page that was taken away while the answer was on its way?",
    setup=(
        "The real kernels in virtual time. In each seed a task of one partition touches a page "
        "that its exporter unmaps within the same 150 us; every message takes 5 to 100 us, so that "
        "an invalidation may overtake an answer. Then somebody else of the exporter's partition "
        "stores into a fresh page, and the importer looks again. *Marks nothing* is the mutant "
        "`install_invalid` of the simulator."
    ),
    claim=(
        "An answer still in flight can be beaten by the invalidation, which then clears nothing; a "
        "list of active faults, in which it marks what it concerns, cures that (sources T16)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    combine=_summed,
    curves=Curves(x="invalidation", y="stale_reached", series="seeds"),
)
