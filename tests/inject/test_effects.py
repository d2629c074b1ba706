"""What every verdict and every cut does to messages, one by one."""

from random import Random

import pytest

from xpmem_emu.inject.effects import REPLAYED_MAX
from xpmem_emu.inject.grammar import parse_injection
from xpmem_emu.inject.interconnect import Interconnect
from xpmem_emu.inject.rules import SIGNATURES, Fate, Rule
from xpmem_emu.kernel.interface import Send
from xpmem_emu.units import MILLISECOND, SECOND
from xpmem_emu.xpc.frame import Header, encode_frame
from xpmem_emu.xpc.messages import Ack, Fault, Get, Invalidate, Message, RecallEntry

MS = MILLISECOND


def under(*texts: str) -> Interconnect:
    interconnect = Interconnect(lambda name: Random(f"seed/{name}"))
    for number, text in enumerate(texts):
        rule = parse_injection(text)
        assert isinstance(rule, Rule)
        rule.name = rule.name or f"r{number}"
        interconnect.add(rule, 0)
    return interconnect


def send(number: int = 0, dst: int = 1, size: int = 10) -> Send:
    return Send(dst, "FAULT", number, [bytes(size)])


def real(message: Message, dst_incarnation: int = 1, dst: int = 1) -> Send:
    kind = type(message).__name__.upper()
    return Send(dst, kind, 1, [encode_frame(Header(0, 1, dst_incarnation, 0, 1), message)])


def numbers(interconnect: Interconnect, *sent: int, at_ns: int = 0) -> list[int]:
    return [d.number for n in sent for d in interconnect.route(at_ns, 0, send(n))]


def test_rules_work_on_what_the_earlier_ones_left() -> None:
    interconnect = under("duplicate", "delay 5ms", "drop --match number=3")
    assert [d.at_ns for d in interconnect.route(0, 0, send(1))] == [5 * MS, 5 * MS]
    assert interconnect.route(0, 0, send(3)) == []


def test_reorder_lets_as_many_overtake_as_it_says() -> None:
    interconnect = under("reorder 2 --match number=1")
    assert numbers(interconnect, 1, 2, 3, 4) == [2, 3, 1, 4]
    other = under("reorder 5")
    assert numbers(other, 1, 2) == []
    assert other.held("r0") == 2
    assert [d.number for d in other.reset(9)] == [1, 2]


def test_latency_keeps_the_order_where_delay_does_not() -> None:
    arrivals = {}
    for verdict in ("delay", "latency"):
        interconnect = under(f"{verdict} 1ms --jitter 20ms")
        arrivals[verdict] = [interconnect.route(n, 0, send(n))[0].at_ns for n in range(50)]
    assert arrivals["latency"] == sorted(arrivals["latency"])
    assert arrivals["delay"] != sorted(arrivals["delay"])


@pytest.mark.parametrize("name", ["uniform", "exponential", "pareto"])
def test_jitter_has_the_distribution_that_was_asked_for(name: str) -> None:
    interconnect = under(f"delay 1ms --jitter 2ms --distribution {name}")
    drawn = [interconnect.route(0, 0, send(n))[0].at_ns - MS for n in range(2000)]
    assert min(drawn) >= 0
    assert (max(drawn) <= 2 * MS) == (name == "uniform")


def test_loss_comes_in_bursts_and_to_the_share_that_was_asked_for() -> None:
    interconnect = under("loss 0.2 --burst 8")
    lost = [not interconnect.route(0, 0, send(n)) for n in range(20_000)]
    assert 0.15 < sum(lost) / len(lost) < 0.25
    bursts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
    assert 6 < sum(lost) / bursts < 10
    total = under("loss 1")
    assert numbers(total, *range(20)) == []


def test_bandwidth_queues_what_does_not_fit() -> None:
    interconnect = under("bandwidth 1000")
    arrivals = [interconnect.route(0, 0, send(n, size=100))[0].at_ns for n in range(3)]
    assert arrivals == [100 * MS, 200 * MS, 300 * MS]
    assert interconnect.route(SECOND, 0, send(9, size=100))[0].at_ns == 1100 * MS
    assert interconnect.route(0, 0, send(9, dst=2, size=100))[0].at_ns == 100 * MS


def test_capacity_drops_what_is_too_much_at_once() -> None:
    interconnect = under("latency 10ms", "capacity 2")
    assert numbers(interconnect, 1, 2, 3) == [1, 2]
    assert numbers(interconnect, 4, at_ns=11 * MS) == [4]


def test_a_cut_is_one_way_unless_it_is_both() -> None:
    one, both = under("link p0->p1 cut"), under("link p0<->p1 cut")
    back = Send(0, "ACK", 1, [b"x"])
    assert (one.route(0, 0, send()), len(one.route(0, 1, back))) == ([], 1)
    assert (both.route(0, 0, send()), both.route(0, 1, back)) == ([], [])
    assert len(both.route(0, 0, send(dst=2))) == 1


def test_a_clog_gives_everything_back_in_order_when_it_ends() -> None:
    interconnect = under("clog")
    assert numbers(interconnect, 1, 2, 3) == []
    assert [(d.number, d.at_ns) for d in interconnect.remove("r0", 7)] == [(1, 7), (2, 7), (3, 7)]


def test_a_flapping_link_is_down_and_up_in_turn() -> None:
    interconnect = under("flap 10ms --up 30ms")
    passed = [bool(interconnect.route(ms * MS, 0, send())) for ms in range(0, 80, 5)]
    assert passed == [False, False, True, True, True, True, True, True] * 2


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("split p0,p1|p2", {(0, 2), (1, 2), (2, 0), (2, 1)}),
        ("isolate p1", {(0, 1), (1, 0), (1, 2), (2, 1), (1, 3), (3, 1)}),
        ("bridge p0|p1|p2", {(0, 2), (2, 0)}),
        ("asymmetric p0|p1,p2", {(0, 1), (0, 2)}),
    ],
)
def test_memberships_cut_what_they_say(text: str, cut: set[tuple[int, int]]) -> None:
    interconnect = under(text)
    ways = [(src, dst) for src in range(4) for dst in range(4) if src != dst]
    assert {way for way in ways if not interconnect.route(0, way[0], send(dst=way[1]))} == cut


def test_replay_repeats_old_messages_to_a_new_incarnation_only() -> None:
    interconnect = under("replay")
    old = [real(Fault(5, 0, n, 1), 1) for n in range(3)]
    for message in old:
        assert len(interconnect.route(0, 0, message)) == 1
    got = interconnect.route(9, 0, real(Ack(), 2))
    assert [d.frames for d in got[1:]] == [message.frames for message in old]
    assert len(interconnect.route(9, 0, real(Ack(), 2))) == 1
    for _ in range(3 * REPLAYED_MAX):
        interconnect.route(9, 0, real(Ack(), 2))
    assert len(interconnect.route(9, 0, real(Ack(), 3))) == 1 + REPLAYED_MAX


def test_a_segment_is_matched_by_name_and_by_its_permits() -> None:
    interconnect = under("drop --match segid=0x77")
    invalidate = Invalidate([RecallEntry(0x77, 1, [(0, 1)])])
    get, other = Get(0x77, 0x99, 2, 0, [], True), Get(0x78, 0x9A, 2, 0, [], True)
    assert len(interconnect.route(0, 0, real(Fault(0x99, 0, 0, 1)))) == 1
    assert interconnect.route(0, 0, real(get)) == []
    assert interconnect.route(0, 0, real(Fault(0x99, 0, 0, 1))) == []
    assert interconnect.route(0, 0, real(invalidate)) == []
    assert len(interconnect.route(0, 0, real(other))) == 1
    assert len(interconnect.route(0, 0, real(Fault(0x9A, 0, 0, 1)))) == 1
    assert len(interconnect.route(0, 0, send())) == 1


@pytest.mark.parametrize("kind", ["FAULT_REPLY", "GET_REPLY", "INVALIDATE_ACK", "ACK"])
def test_a_reply_names_no_segment_and_cannot_be_matched_by_one(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} names no segment.*FAULT"):
        under(f"drop --match type={kind},segid=0x77")
    under("drop --match type=FAULT,segid=0x77")


def test_the_end_of_a_sender_heals_it_alone() -> None:
    interconnect = under("hold --match type=ACK")
    assert interconnect.route(0, 0, real(Ack(), 1)) == []
    interconnect.leave(0)
    assert interconnect.release("r0", 0) == []
    assert len(interconnect.route(0, 0, real(Ack(), 1))) == 1
    assert interconnect.route(0, 1, real(Ack(), 1)) == []


def test_the_nth_message_of_each_sender_is_hit_once() -> None:
    interconnect = under("drop --match nth=3")
    assert numbers(interconnect, 1, 2, 3, 4) == [1, 2, 4]
    passed = [bool(interconnect.route(0, 5, send(n))) for n in range(4)]
    assert passed == [True, True, False, True]


def test_a_rule_ends_by_itself() -> None:
    interconnect = under("drop --for 10ms")
    assert numbers(interconnect, 1, at_ns=9 * MS) == []
    assert numbers(interconnect, 2, at_ns=10 * MS) == [2]


def test_senders_count_and_draw_for_themselves() -> None:
    """One interconnect for all is the same as one for each."""
    together = under("drop --prob 0.5 --times 10")
    alone = {src: under("drop --prob 0.5 --times 10") for src in range(3)}
    for number in range(40):
        for src, own in alone.items():
            message = send(number, dst=7)
            assert together.route(0, src, message) == own.route(0, src, message)


def test_every_verdict_has_its_line_in_the_reference() -> None:
    assert set(SIGNATURES) == set(Fate)
