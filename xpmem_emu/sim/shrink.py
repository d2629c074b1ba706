"""Makes a failing plan small: deletes what is not needed for the same invariant to fail.

First faults and what malicious partitions say, then operations, each in halving chunks, then
scheduling choices and jitter; the image is left alone. A smaller plan counts only when it breaks
an invariant that the first one broke.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from xpmem_emu.sim.plan import LinkLatency, Plan
from xpmem_emu.sim.run import run_plan

_T = TypeVar("_T")
Fails = Callable[[Plan], bool]
OnSmaller = Callable[[Plan], None]


def shrink(plan: Plan, progress: OnSmaller = lambda plan: None) -> Plan:
    """The smallest plan found that fails as `plan` does; `plan` itself when it does not fail."""
    wanted = set(run_plan(plan).invariants)
    if not wanted:
        return plan

    def fails(candidate: Plan) -> bool:
        failed = bool(wanted & set(run_plan(candidate).invariants))
        if failed:
            progress(candidate)
        return failed

    before = None
    while before != plan:
        before = plan
        plan = _faults(plan, fails)
        plan = _forgeries(plan, fails)
        plan = _operations(plan, fails)
        plan = _choices(plan, fails)
    return plan


def _faults(plan: Plan, fails: Fails) -> Plan:
    kept = _without(plan.faults, lambda faults: fails(replace(plan, faults=faults)))
    return replace(plan, faults=kept)


def _forgeries(plan: Plan, fails: Fails) -> Plan:
    kept = _without(plan.forgeries, lambda rest: fails(replace(plan, forgeries=rest)))
    return replace(plan, forgeries=kept)


def _operations(plan: Plan, fails: Fails) -> Plan:
    kept = _without(plan.operations, lambda rest: fails(replace(plan, operations=rest)))
    return replace(plan, operations=kept)


def _choices(plan: Plan, fails: Fails) -> Plan:
    """Threads in order, and messages too."""
    everybody = list(range(plan.knobs.partitions))
    plan = _if(plan, replace(plan, fifo=everybody), fails)
    steady = [LinkLatency(link.src, link.dst, link.latency_ns) for link in plan.links]
    return _if(plan, replace(plan, links=steady), fails)


def _if(plan: Plan, candidate: Plan, fails: Fails) -> Plan:
    return candidate if candidate != plan and fails(candidate) else plan


def _without(items: Sequence[_T], fails: Callable[[list[_T]], bool]) -> list[_T]:
    """Delta debugging by deletion: chunks of half the list, then a quarter, down to one."""
    kept = list(items)
    size = max(1, len(kept) // 2)
    while kept:
        at = 0
        while at < len(kept):
            rest = kept[:at] + kept[at + size :]
            if fails(rest):
                kept = rest
            else:
                at += size
        if size == 1:
            break
        size //= 2
    return kept
