"""Which notifier design suits which client: chaos under each, until a checker says no."""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from xpmem_emu.image import NotifierDesign, RmapLock
from xpmem_emu.lab.experiment import Conclusion, Experiment, LabRow, Setting, Word, number
from xpmem_emu.shipped import find_toml
from xpmem_emu.sim.draw.swarm import read_swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.plan import Op, Plan
from xpmem_emu.sim.run import run_plan

_XPMEM, _DEVICES = "XPMEM", {"GRU": "gru", "KVM": "guest", "HMM": "mirror"}
_SEEDS = 12
_SLEEPING = (NotifierDesign.RANGE, NotifierDesign.INTERVAL)


def _suits(design: NotifierDesign, lock: RmapLock, client: str) -> bool:
    """Whether docs/laboratory.md claims so."""
    if client != _XPMEM or design in (NotifierDesign.DEFERRED, NotifierDesign.GATHER):
        return True
    return design in _SLEEPING and lock is RmapLock.RWSEM


def _cases(_setting: Setting) -> list[LabRow]:
    return [
        {
            "design": design.value,
            "rmap_lock": lock.value,
            "client": client,
            "suits": "yes" if _suits(design, lock, client) else "no",
        }
        for design in NotifierDesign
        for lock in (RmapLock if design in _SLEEPING else [RmapLock.SPINLOCK])
        for client in (*_DEVICES, _XPMEM)
    ]


def _plans(setting: Setting, case: LabRow) -> Iterator[Plan]:
    """Worlds of the design in which nobody but the client has any translation."""
    client = str(case["client"])
    name = "chaos-designs" if client == _XPMEM else "chaos-alone"
    swarm = read_swarm(find_toml("scenarios", name))
    choice = NotifierDesign(str(case["design"])), RmapLock(str(case["rmap_lock"]))
    swarm = replace(swarm, designs=(choice,))
    for seed in range(setting.seed, setting.seed + setting.scaled(_SEEDS)):
        plan = draw_plan(swarm, seed)
        kept = [
            each
            for each in plan.operations
            if each.op is not Op.DEVICE or each.detail == _DEVICES.get(client)
        ]
        yield replace(plan, operations=kept)


def _measure(setting: Setting, case: LabRow) -> LabRow:
    seeds = 0
    for plan in _plans(setting, case):
        seeds += 1
        result = run_plan(plan)
        if result.violations:
            first = result.violations[0]
            text = first.text.removeprefix("panic: KernelBug: ").partition(" (")[0]
            return {"seeds": seeds, "found_by": first.invariant, "says": text}
    return {"seeds": seeds, "found_by": "nothing", "says": ""}


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    wrong = [row for row in rows if row["suits"] == "no"]
    caught = [row for row in wrong if row["found_by"] != "nothing"]
    clean = [row for row in rows if row["suits"] == "yes" and row["found_by"] == "nothing"]
    right = len(rows) - len(wrong)
    most = max(number(row, "seeds") for row in wrong)
    all_so = len(caught) == len(wrong) and len(clean) == right
    return Conclusion(
        Word.SUPPORTED if all_so else Word.REFUTED,
        f"{len(caught)} of {len(wrong)} that do not suit their client are found, in {most} seeds "
        f"at most; of the {right} others {len(clean)} go through all seeds. Only who has to ask "
        f"another partition is ill served: it sleeps, so it can be told after the locks, or under "
        f"locks that sleep, and in no other way.",
    )


EXPERIMENT = Experiment(
    place=12,
    question="Which notifier design suits which client, and who finds out where one does not?",
    setup=(
        "Worlds of the swarms chaos-alone (devices of tasks that share nothing) and chaos-designs "
        "(importers; their devices left out), with one design and the operations of one client: up "
        "to twelve seeds each, until an invariant is broken. Seeds: how many it took, or all."
    ),
    claim=(
        "A client that sleeps cannot be called under a spinlock; one that does not can be called "
        "anywhere (sources T7, T10, T12)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
)
