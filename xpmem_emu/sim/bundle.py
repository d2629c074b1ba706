"""The result bundle of a simulated run: beside what every bundle has, two files.

plan.json      what was done; `xpmem-emu sim replay` takes it
history.jsonl  what tasks saw
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from xpmem_emu.judge.bundle import fill_bundle, new_bundle
from xpmem_emu.judge.diagram import Mark, message_diagram
from xpmem_emu.sim.plan import InjectionKind, Plan, encode_plan
from xpmem_emu.sim.run import Result, Run


def write_run_bundle(run: Run, result: Result, root: Path, replay: str) -> Path:
    """Write the bundle of a finished run under `root`; its folder. Raises OSError."""
    plan, trace = run.plan, run.cluster.trace
    with new_bundle(root, plan.scenario) as folder:
        (folder / "plan.json").write_bytes(encode_plan(plan))
        history = [*run.stage.history.accesses, *run.stage.history.wipes]
        (folder / "history.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(history))
        diagram = message_diagram(trace, plan.knobs.partitions, _marks(plan))
        fill_bundle(folder, result, trace, diagram, replay)
    return folder


def _marks(plan: Plan) -> Iterator[Mark]:
    """What the plan does to partitions; what it does to messages is in the events."""
    for fault in plan.faults:
        if fault.trouble is not InjectionKind.FAULT:
            yield Mark(fault.at_ns, fault.partid, f"{fault.trouble}: {fault.name}")
            yield Mark(fault.until_ns, fault.partid, f"{fault.name} is over")
