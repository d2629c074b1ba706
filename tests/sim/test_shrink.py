"""A failing run becomes small and still fails; its bundle says everything about it."""

from pathlib import Path

import msgspec
from msgspec.structs import replace

from xpmem_emu.cli.main import run_command as command
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.judge.diagram import message_diagram
from xpmem_emu.judge.perfetto import perfetto_trace
from xpmem_emu.sim.bundle import write_run_bundle
from xpmem_emu.sim.draw.swarm import Swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.sim.plan import PlannedInjection, decode_plan
from xpmem_emu.sim.run import Run, run_plan
from xpmem_emu.sim.shrink import shrink


def test_shrinking_keeps_the_failure_and_little_else(swarm: Swarm) -> None:
    plan = draw_plan(swarm, 0)
    with mutated("free_before_ack"):
        wanted = set(run_plan(plan).invariants)
        small = shrink(plan)
        assert wanted & set(run_plan(small).invariants)
    assert len(small.operations) * 5 <= len(plan.operations)
    assert not small.faults


def test_a_run_that_does_not_fail_is_not_shrunk(swarm: Swarm) -> None:
    plan = draw_plan(swarm, 3)
    assert shrink(plan) is plan


def test_a_bundle_holds_the_run_and_how_to_do_it_again(swarm: Swarm, tmp_path: Path) -> None:
    run = Run(draw_plan(swarm, 0))
    result = run.result()
    folder = write_run_bundle(run, result, tmp_path, "xpmem-emu sim replay chaos --seed 0")
    latest = tmp_path / "chaos" / "latest"
    assert latest.resolve() == folder
    assert run_plan(decode_plan((latest / "plan.json").read_bytes())).digest == result.digest
    assert len((latest / "events.jsonl").read_text().splitlines()) == result.events
    assert (latest / "diagram.svg").read_text().startswith("<svg")
    items = msgspec.json.decode((latest / "trace.json").read_bytes())["traceEvents"]
    starts = [item["id"] for item in items if item["ph"] == "s"]
    assert starts
    assert starts == [item["id"] for item in items if item["ph"] == "f"]


def test_the_diagram_shows_the_faults_and_the_messages_that_they_hit(swarm: Swarm) -> None:
    plan = draw_plan(swarm, 0)
    drop = PlannedInjection("lost", 0, plan.load_ns, text="drop --match type=GET --times 1")
    run = Run(replace(plan, faults=[drop]))
    assert run.result().injected["drop"] > 0
    svg = message_diagram(run.cluster.trace, plan.knobs.partitions)
    assert "lost: drop --match type=GET --times 1 --name lost" in svg
    assert "drop GET" in svg
    assert "OPEN_REQUEST" not in svg
    items = perfetto_trace(run.cluster.trace)["traceEvents"]
    names = [item["args"] for item in items if item["name"] == "process_name"]
    assert {"name": "faults"} in names


def test_the_command_answers_with_the_verdict(tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path)]
    assert command(["sim", "run", "chaos", "--seed", "0", *runs], CommandSession()) == 0
    broken = ["sim", "run", "chaos", "--seed", "0", "--mutant", "canary", *runs]
    assert command(broken, CommandSession()) == 1
    plan = str(tmp_path / "chaos" / "latest" / "plan.json")
    assert command(["sim", "replay", plan, "--mutant", "canary", *runs], CommandSession()) == 1
    assert command(["sim", "run", "chaos", *runs], CommandSession()) == 64
