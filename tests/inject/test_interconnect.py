"""The interconnect and its rules."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpmem_emu.inject.interconnect import Delivery, Interconnect
from xpmem_emu.inject.rules import Fate, Match, Rule
from xpmem_emu.kernel.interface import Send


def new(seed: object = "s") -> Interconnect:
    return Interconnect(lambda name: Random(f"{seed}/{name}"))


def send(kind: str = "FAULT", dst: int = 1, number: int = 5) -> Send:
    return Send(dst, kind, number, [b"frame", b"bulk"])


def test_without_rules_a_message_arrives_once_and_unchanged() -> None:
    message = send()
    assert new().route(7, 0, message) == [Delivery(7, 1, message.frames, 0, "FAULT", 5)]


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        (Match(), True),
        (Match(kind="FAULT"), True),
        (Match(kind="INVALIDATE"), False),
        (Match(src=0, dst=1), True),
        (Match(src=1), False),
        (Match(dst=2), False),
        (Match(number=5), True),
        (Match(number=6), False),
    ],
)
def test_a_rule_hits_what_it_matches(match: Match, hit: bool) -> None:
    interconnect = new()
    interconnect.add(Rule("r", Fate.DROP, match))
    assert (interconnect.route(0, 0, send()) == []) == hit
    assert interconnect.rules[0].hits == hit


def test_an_unknown_message_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="FAULT_REPLY"):
        Match(kind="FALUT")


def test_after_and_times_bound_a_rule() -> None:
    interconnect = new()
    interconnect.add(Rule("r", Fate.DROP, after=2, times=3))
    arrived = [bool(interconnect.route(0, 0, send())) for _ in range(8)]
    assert arrived == [True, True, False, False, False, True, True, True]


def test_duplicate_delay_and_corrupt() -> None:
    message = send()
    checks: dict[Fate, Callable[[list[Delivery]], bool]] = {
        Fate.DUPLICATE: lambda got: len(got) == 2 and got[0] == got[1],
        Fate.DELAY: lambda got: 110 <= got[0].at_ns < 115,
        Fate.CORRUPT: lambda got: got[0].frames[0] != b"frame" and got[0].frames[1] == b"bulk",
    }
    for verdict, check in checks.items():
        interconnect = new()
        interconnect.add(Rule("r", verdict, delay_ns=10, jitter_ns=5))
        assert check(interconnect.route(100, 0, message)), verdict
    assert message.frames == [b"frame", b"bulk"]


def test_held_messages_come_in_order_when_released_and_when_healed() -> None:
    interconnect = new()
    interconnect.add(Rule("h", Fate.HOLD))
    for number in range(3):
        assert interconnect.route(0, 0, send(number=number)) == []
    assert interconnect.held("h") == 3
    assert [d.at_ns for d in interconnect.release("h", 50)] == [50, 50, 50]
    interconnect.route(60, 0, send())
    assert len(interconnect.reset(70)) == 1
    assert interconnect.route(80, 0, send())
    assert not interconnect.rules


def test_a_name_is_taken_once() -> None:
    interconnect = new()
    interconnect.add(Rule("r", Fate.DROP))
    with pytest.raises(ValueError, match="already"):
        interconnect.add(Rule("r", Fate.HOLD))


@given(st.integers(0, 1000), st.booleans())
def test_a_rule_draws_from_its_own_stream(seed: int, idle: bool) -> None:
    """Neither another rule nor one of probability 0 changes what a rule does."""

    def outcomes(*others: Rule) -> list[bool]:
        interconnect = new(seed)
        for rule in (*others, Rule("mine", Fate.DROP, probability=0.5)):
            interconnect.add(rule)
        return [bool(interconnect.route(0, 0, send())) for _ in range(40)]

    other = Rule("other", Fate.DROP, Match(kind="INVALIDATE"), probability=0.5)
    assert outcomes() == outcomes(Rule("none", Fate.DROP, probability=0) if idle else other)
