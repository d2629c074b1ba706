"""Measures the cases of an experiment, one by one or on several processes.

Rows come in the order of the cases whatever the processes do, so that they are the same again.
"""

from collections.abc import Iterator
from functools import partial

from xpmem_emu.lab.experiment import LabRow, Setting
from xpmem_emu.lab.registry import find_experiment
from xpmem_emu.sim.workers import workers


def measured_case(name: str, setting: Setting, case: LabRow) -> LabRow:
    """The row of a case: what was given, then what was found."""
    found = find_experiment(name).measure(setting, case)
    assert not case.keys() & found.keys(), "what is found is not what was given"
    return {**case, **found}


def measured_cases(name: str, setting: Setting, jobs: int) -> Iterator[LabRow]:
    """The rows of all cases, as they come in."""
    cases = find_experiment(name).cases(setting)
    work = partial(measured_case, name, setting)
    if jobs == 1:
        yield from map(work, cases)
        return
    with workers(jobs) as pool:
        yield from pool.map(work, cases)
