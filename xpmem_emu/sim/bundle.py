"""The result bundle of one run: everything to understand it and to do it again, in one folder.

    plan.json      what was done; `xpmem-emu sim replay` takes it
    result.json    verdict and counts        events.jsonl   the event stream
    history.jsonl  what tasks saw            diagram.svg    messages, Lamport style
    trace.json     for the Perfetto viewer   replay         the command that does it again

`runs/<scenario>/latest` points at the newest one of a scenario, `runs/latest` at that of all.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from xpmem_emu.judge.diagram import Mark, message_diagram
from xpmem_emu.judge.perfetto import perfetto_trace
from xpmem_emu.sim.plan import InjectionKind, Plan, encode_plan
from xpmem_emu.sim.run import Result, Run

_json = msgspec.json.Encoder(enc_hook=str)


def write_run_bundle(run: Run, result: Result, root: Path, replay: str) -> Path:
    """Write the bundle of a finished run under `root`; its folder. Raises OSError."""
    with new_bundle(root, run.plan.scenario) as folder:
        trace = run.cluster.trace
        (folder / "plan.json").write_bytes(encode_plan(run.plan))
        (folder / "result.json").write_bytes(msgspec.json.format(_json.encode(result), indent=1))
        (folder / "events.jsonl").write_bytes(_json.encode_lines([each.flat() for each in trace]))
        history = [*run.stage.history.accesses, *run.stage.history.wipes]
        (folder / "history.jsonl").write_bytes(_json.encode_lines(history))
        partitions = run.plan.knobs.partitions
        (folder / "diagram.svg").write_text(message_diagram(trace, partitions, _marks(run.plan)))
        (folder / "trace.json").write_bytes(_json.encode(perfetto_trace(trace)))
        (folder / "replay").write_text(f"{replay}\n")
    return folder


def _marks(plan: Plan) -> Iterator[Mark]:
    """What the plan does to partitions; what it does to messages is in the events."""
    for fault in plan.faults:
        if fault.trouble is not InjectionKind.FAULT:
            yield Mark(fault.at_ns, fault.partid, f"{fault.trouble}: {fault.name}")
            yield Mark(fault.until_ns, fault.partid, f"{fault.name} is over")


@contextmanager
def new_bundle(root: Path, scenario: str) -> Iterator[Path]:
    """A folder for the bundle of a run of `scenario`; `latest` points at it once it is written, and
    when it cannot be, nothing of it is left. Raises OSError."""
    home = root / scenario
    if home.is_symlink():  # a scenario is called latest
        home.unlink()
    folder = home / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _point(home / "latest", folder.name)
    _point(root / "latest", f"{scenario}/{folder.name}")


def _point(link: Path, target: str) -> None:
    if link.is_dir() and not link.is_symlink():
        return
    fresh = link.with_name(f".latest-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.rename(link)
