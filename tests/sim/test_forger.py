"""What a malicious partition makes up: well-formed, drawn from a seed, sent in its own name."""

from random import Random

from xpmem_emu.judge.verdict import Verdict
from xpmem_emu.sim.draw.forging import draw_forgeries, references
from xpmem_emu.sim.plan import Forgery, Knobs, LinkLatency, Op, Operation, Plan
from xpmem_emu.sim.run import Run
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpc.events import Received
from xpmem_emu.xpc.messages import MESSAGE_NAMES

_LINKS = [LinkLatency(src, dst, 20_000) for src in range(3) for dst in range(3) if src != dst]
MADE = [Operation(0, Op.MAKE, made=9), Operation(0, Op.GET, made=10)]


def forged(*forgeries: Forgery) -> Run:
    """A run of three partitions that do nothing, of which one makes these up."""
    return Run(
        Plan("forged", 1, Knobs(), _LINKS, [], [], [], 200 * MILLISECOND, [], list(forgeries))
    )


def test_every_type_is_drawn_and_each_is_what_its_receiver_takes() -> None:
    drawn = [
        forgery for seed in range(60) for forgery in draw_forgeries(Random(seed), MADE, 3, 0, 1000)
    ]
    assert {forgery.kind for forgery in drawn} == set(MESSAGE_NAMES)
    assert {name for forgery in drawn for name in references(forgery)} == {
        ("segment", 9),
        ("permit", 10),
    }
    assert all(forgery.src != forgery.dst for forgery in drawn)


def test_a_forged_request_is_taken_and_the_forger_is_sound_again_in_the_end() -> None:
    run = forged(Forgery(100 * MILLISECOND, 2, 0, "FIND_NAME", ["nobody"]))
    result = run.result()
    taken = [
        record.partid
        for record in run.cluster.trace
        if isinstance(record.event, Received) and record.event.kind == "FIND_NAME"
    ]
    assert (taken, result.injected["forgery"]) == ([0], 1)
    assert result.verdict is Verdict.VALID, result.violations


def test_a_claim_to_be_a_later_boot_shuts_out_nobody_but_its_owner() -> None:
    claim = Forgery(100 * MILLISECOND, 2, 0, "HEARTBEAT", [1, False, 3, True], newer=1 << 40)
    run = forged(claim)
    result = run.result()
    assert result.verdict is Verdict.VALID, result.violations
    assert run.cluster.boot_of(2) > 1 << 24
    assert (run.cluster.boot_of(0), run.cluster.boot_of(1)) == (1, 1)


def test_the_sound_one_that_takes_its_place_is_known_to_every_judge() -> None:
    """Chaos-malice, seed 295: the model of memory had not heard of its boot."""
    run = forged(Forgery(100 * MILLISECOND, 1, 2, "PENDING", [], number=1 << 20))
    result = run.result()
    assert result.verdict is Verdict.VALID, result.violations
