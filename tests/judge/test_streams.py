"""Streams in files, judged without the kernels that wrote them."""

import errno
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest

from xpmem_emu.errors import KernelError
from xpmem_emu.image import Image
from xpmem_emu.inject.events import StoodStill
from xpmem_emu.judge.merging import Merge, by_partition, read_records
from xpmem_emu.judge.streams import StreamJudgement, StreamsEnd, judge_stream_files
from xpmem_emu.kernel.events import KernelBoot, KernelPanic
from xpmem_emu.sim.draw.swarm import Swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.sim.run import Run
from xpmem_emu.trace import Event, Record
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpc.events import Received, Sent
from xpmem_emu.xpmem.events import FaultBegin, FaultEnd

VISIBLE = {
    "install_invalid": "S4",
    "free_before_ack": "S2",
    "ack_before_zap": "S2",
    "forget_holder": "S2",
    "no_quarantine": "S7",
    "accept_old_incarnation": "S6",
    "no_dedup": "S9",
    "unpin_twice": "S11",
    "stale_ids": "S6",
}
"""Broken protocols that show in events alone, and as what."""
LIMIT = 60


def write(folder: Path, records: list[Record]) -> list[Path]:
    """One file for each partition, as live partitions write them."""
    lines: dict[int, list[bytes]] = defaultdict(list)
    for record in records:
        lines[record.partid].append(msgspec.json.encode(record.flat()) + b"\n")
    for partid, found in lines.items():
        (folder / f"p{partid}.events.jsonl").write_bytes(b"".join(found))
    return sorted(folder.glob("*.jsonl"))


def judged(swarm: Swarm, seed: int, folder: Path) -> StreamJudgement:
    """The streams of a simulated run, which says itself when a partition stood still."""
    run = Run(draw_plan(swarm, seed))
    tell = run.watch.resumed

    def resumed(partid: int, stopped_ns: int) -> None:
        tell(partid, stopped_ns)
        still = StoodStill(late_ns=stopped_ns)
        run.cluster.trace.append(Record(0, run.cluster.now_ns, partid, "fabric", still))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.watch, "resumed", resumed)
        run.result()
    files = write(folder, run.cluster.trace)
    return judge_stream_files(files, run.plan.knobs.image(), slack_ns=MILLISECOND)


@pytest.mark.parametrize("seed", range(8))
def test_streams_of_a_good_run_are_valid(swarm: Swarm, seed: int, tmp_path: Path) -> None:
    verdict = judged(swarm, seed, tmp_path)
    assert verdict.violations == []
    assert verdict.events > 100


@pytest.mark.slow
@pytest.mark.parametrize(("mutant", "invariant"), VISIBLE.items())
def test_a_broken_protocol_shows_in_events_alone(
    swarm: Swarm, mutant: str, invariant: str, tmp_path: Path
) -> None:
    with mutated(mutant):
        for seed in range(LIMIT):
            found = {each.invariant for each in judged(swarm, seed, tmp_path).violations}
            if invariant in found:
                return
    pytest.fail(f"{mutant} shows in none of {LIMIT} seeds")


# -- small streams ---------------------------------------------------------------------------


def stream(partid: int, *events: tuple[int, Event], boot: int = 1) -> list[Record]:
    """A boot and then these events, each with its time in milliseconds."""
    begun = KernelBoot(boot=boot, image="laptop", frames=16)
    numbered = enumerate([(0, begun), *events], start=1)
    return [
        Record(number, time_ms * MILLISECOND, partid, "thread", event)
        for number, (time_ms, event) in numbered
    ]


def message(kind: type[Sent] | type[Received], peer: int) -> Event:
    return kind(peer=peer, kind="GET", channel=0, number=5, incarnation=1 << 16)


def test_a_message_is_never_taken_before_it_was_sent(tmp_path: Path) -> None:
    late = stream(0, (900, message(Sent, 1)))
    files = write(tmp_path, [*late, *stream(1, (10, message(Received, 0)))])
    order = [
        (step.partid, type(record.event))
        for step in Merge(by_partition(files))
        for record in step.records
        if not isinstance(record.event, KernelBoot)
    ]
    assert order == [(0, Sent), (1, Received)]


def test_the_torn_end_of_a_killed_boot_is_no_damage(tmp_path: Path) -> None:
    path = write(tmp_path, stream(0, (1, message(Sent, 1))))[0]
    whole = path.read_bytes()
    again = b"".join(msgspec.json.encode(r.flat()) + b"\n" for r in stream(0, boot=2))
    path.write_bytes(whole[:-20] + b"\n" + again + whole[:7])
    assert [type(record and record.event) for record in read_records(path)] == [
        KernelBoot,
        type(None),
        KernelBoot,
        type(None),
    ]
    assert judge_stream_files([path], Image()).boots == 2


@pytest.mark.parametrize("cut", [(1, 2), (0, 1)], ids=["a gap", "no boot"])
def test_any_other_damage_is_refused_with_its_place(cut: tuple[int, int], tmp_path: Path) -> None:
    path = write(tmp_path, stream(0, (1, message(Sent, 1)), (2, message(Sent, 2))))[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: cut[0]] + lines[cut[1] :]))
    with pytest.raises(KernelError, match="line") as caught:
        judge_stream_files([path], Image())
    assert caught.value.errno == errno.EBADMSG


def test_garbage_inside_of_a_boot_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, stream(0, (1, message(Sent, 1)), (2, message(Sent, 2))))[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + b"".join(lines[1:]))
    with pytest.raises(KernelError, match="line 2"):
        judge_stream_files([path], Image())


def test_time_in_which_a_partition_stood_still_does_not_count(tmp_path: Path) -> None:
    fault = {"fault": 1, "segid": 1 << 48}
    begun = FaultBegin(**fault, touched=0, page=0, count=1)
    ended = FaultEnd(**fault, pages=0, outcome="too late")
    slow = stream(1, (10, begun), (99_000, ended))
    assert [v.invariant for v in judge_stream_files(write(tmp_path, slow), Image()).violations] == [
        "L1"
    ]
    still = Record(0, 98_000 * MILLISECOND, 1, "fabric", StoodStill(late_ns=97_000 * MILLISECOND))
    assert (
        judge_stream_files(write(tmp_path, [*slow[:2], still, *slow[2:]]), Image()).violations == []
    )


def test_what_was_not_judged_is_said_and_a_rest_is_judged_as_one(tmp_path: Path) -> None:
    files = write(tmp_path, stream(0) + stream(1, (1, KernelPanic(reason="why", place="there"))))
    cut = judge_stream_files(files, Image())
    assert [each.invariant for each in cut.violations] == ["S11"]
    assert {"S1", "S8", "L4"} <= cut.unjudged.keys()
    assert not cut.judged.keys() & cut.unjudged.keys()
    rest = judge_stream_files(files, Image(), StreamsEnd.AT_REST)
    assert [each.invariant for each in rest.violations] == ["S11", "L4", "L4"]
