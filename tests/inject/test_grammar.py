"""Faults as text: both ways without loss, and refusals that say how to write it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpmem_emu.failpoints.terms import CERTAIN, Term, TermAction, format_chain, parse_chain
from xpmem_emu.inject.grammar import format_injection, parse_injection
from xpmem_emu.inject.injections import (
    Bound,
    ClockEffect,
    ClockInjection,
    Injection,
    PaceEffect,
    PaceInjection,
    PointInjection,
    PoisonInjection,
    StrainInjection,
    concerns,
)
from xpmem_emu.inject.rules import (
    ABOUT_SEGMENTS,
    SIGNATURES,
    Distribution,
    Fate,
    Link,
    Match,
    Membership,
    Rule,
    Sides,
)
from xpmem_emu.xpc.messages import MESSAGE_NAMES

names = st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True))
times = st.integers(0, 1 << 50)
lengths = st.one_of(st.none(), times)
partid = st.integers(0, 4095)
several = st.sets(partid, min_size=1, max_size=5).map(lambda found: tuple(sorted(found)))
shares = st.floats(0, 1)
maybe = st.one_of(st.none(), partid)
counts = st.integers(1, 1 << 40)
VALUES = {
    "delay_ns": times,
    "jitter_ns": times,
    "distribution": st.sampled_from(Distribution),
    "count": counts,
    "rate": counts,
    "share": shares,
    "burst": counts,
    "depth": st.floats(0, 1, exclude_min=True),
    "down_ns": st.integers(1, 1 << 50),
    "up_ns": times,
}


@st.composite
def matches(draw: st.DrawFn) -> Match:
    segid = draw(st.one_of(st.none(), counts))
    names = sorted(MESSAGE_NAMES if segid is None else ABOUT_SEGMENTS)
    return Match(
        draw(st.one_of(st.none(), st.sampled_from(names))),
        draw(maybe),
        draw(maybe),
        draw(st.one_of(st.none(), st.integers(0, 1 << 62))),
        draw(st.one_of(st.none(), counts)),
        segid,
    )


@st.composite
def sides(draw: st.DrawFn) -> Sides:
    kind = draw(st.sampled_from(Membership))
    count = {Membership.ISOLATE: 1, Membership.BRIDGE: 3, Membership.ASYMMETRIC: 2}.get(kind, 4)
    members = draw(st.lists(partid, min_size=count, max_size=count, unique=True))
    return Sides(kind, tuple((one,) for one in members))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    verdict = draw(st.sampled_from(sorted(SIGNATURES, key=lambda each: each.value)))
    link = st.builds(
        Link, st.one_of(st.none(), several), st.one_of(st.none(), several), st.booleans()
    )
    scope = draw(st.one_of(link, sides()))
    if isinstance(scope, Sides):
        verdict = Fate.CUT
    signature = SIGNATURES[verdict]
    own = {name: draw(VALUES[name]) for name in (signature.position, *signature.options) if name}
    return Rule(
        draw(names),
        verdict,
        draw(matches()),
        draw(shares),
        draw(st.one_of(st.none(), st.integers(0, 1 << 40))),
        draw(st.integers(0, 1 << 40)),
        scope=scope,
        for_ns=draw(lengths),
        **own,
    )


errnos = st.sampled_from(["ENOMEM", "EAGAIN", "EIO", "NOPROC"]).map(
    lambda name: parse_chain(f"return({name})")[0].argument
)


@st.composite
def terms(draw: st.DrawFn) -> Term:
    action = draw(st.sampled_from(TermAction))
    argument = {TermAction.DELAY: times, TermAction.RETURN: st.one_of(st.just(0), errnos)}.get(
        action
    )
    return Term(
        action,
        0 if argument is None else draw(argument),
        draw(st.integers(0, CERTAIN)),
        draw(st.one_of(st.none(), st.integers(0, 999_999_999))),
    )


chains = st.lists(terms(), min_size=1, max_size=4).map(tuple)
others: st.SearchStrategy[Injection] = st.one_of(
    st.builds(
        ClockInjection, names, several, st.just(ClockEffect.JUMP), amount=times, for_ns=lengths
    ),
    st.builds(
        ClockInjection,
        names,
        several,
        st.just(ClockEffect.SKEW),
        share=st.floats(-0.99, 100),
        for_ns=lengths,
    ),
    st.builds(ClockInjection, names, several, st.just(ClockEffect.FREEZE), for_ns=lengths),
    st.builds(PaceInjection, names, several, st.just(PaceEffect.THROTTLE), times, lengths),
    st.builds(PaceInjection, names, several, st.just(PaceEffect.STALL), for_ns=lengths),
    st.builds(
        PointInjection, names, several, st.just("mm.gup.pin"), chains.map(format_chain), lengths
    ),
    st.builds(PoisonInjection, names, partid.map(lambda one: (one,)), times, lengths),
    st.builds(StrainInjection, names, several, st.sampled_from(Bound), times, lengths),
)


@given(st.one_of(rules(), others))
def test_what_is_written_reads_back_as_an_equal_fault(fault: Injection) -> None:
    text = format_injection(fault)
    assert parse_injection(text) == fault, text
    assert format_injection(parse_injection(text)) == text


@given(chains)
def test_terms_of_failpoints_read_back_too(chain: tuple[Term, ...]) -> None:
    assert parse_chain(format_chain(chain)) == chain


@pytest.mark.parametrize(
    "text",
    [
        "link p0->p2 delay 20ms --jitter 5ms --for 30s --name slow",
        "link p0->p2 drop --match type=INVALIDATE --times 2",
        "hold --match type=FAULT_REPLY",
        "link p0<->p1,p2 loss 0.05 --burst 4 --depth 0.8",
        "link *->p1 flap 200ms --up 800ms",
        "split p0,p1|p2",
        "bridge p0|p1|p2 --for 5s",
        "p1:xpmem.fault.before_reply=2%3*return(ENOMEM)->pause",
        "clock p1 skew -0.1",
        "poison p0 0x12",
    ],
)
def test_canonical_texts_are_written_as_people_write_them(text: str) -> None:
    assert format_injection(parse_injection(text)) == text


def test_short_forms_mean_the_same() -> None:
    for short, long in {
        "drop --prob 5%": "drop --prob 0.05",
        "link p0-2->1 drop": "link p0,p1,p2->p1 drop",
        "--name x drop": "drop --name x",
        "drop --match type=ACK --match nth=3": "drop --match type=ACK,nth=3",
        "strain p0 number 0x80000000": "strain p0 number 2147483648",
    }.items():
        assert format_injection(parse_injection(short)) == long


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "an empty text"),
        ("dorp", "no fault is called 'dorp'; one of drop"),
        ("pass", "no fault is called 'pass'"),
        ("link p0 drop", "'p0' is not a link"),
        ("link p0->p1", "a link fault is written like"),
        ("delay", "write it like `delay TIME`"),
        ("delay 5", "is not a time"),
        ("drop 5", "write it like `drop`"),
        ("drop --times", "--times needs a value"),
        ("drop --jitter 5ms", "--jitter does not belong here; --match, --name"),
        ("drop --prob 2", "is not a probability"),
        ("drop --match kind=ACK", "messages are not matched by 'kind'"),
        ("drop --match type=AKC", "no message is called 'AKC'"),
        ("drop --name a/b", "is not a name"),
        ("link p0->p5000 drop", "p0 to p4095"),
        ("split p0", "two or more sides"),
        ("split p0|p0", "on one side only"),
        ("bridge p0|p1", "bridge takes 3 sides"),
        ("clock p1 skew -1", "a clock runs forward"),
        ("clock p1 stop", "write it like `clock p1 jump"),
        ("throttle p1", "write it like `throttle p1 5ms`"),
        ("poison p0,p1 3", "belongs to one partition"),
        ("strain p0 pins 3", "one of pin_limit"),
        ("p1:mm.gup.pin=delay", "delay needs a time"),
        ("p1:mm.gup.pin=200%return", "more than 100%"),
        ("p1:mm.gup.pin=return(ENOTHING)", "no errno is called"),
        ("bandwidth 0", "more than 0 bytes"),
        ("flap 0ms", "down for some time"),
        ("split p0|x", "'x' is not a partition"),
        ("split p0 p1", "write it like `split SIDE|SIDE`"),
        ("clock p1 skew fast", "'fast' is not a share"),
        ("stall p1 p2", "write it like `stall p1 --for 2s`"),
        ("poison p0", "write it like `poison p0 0x12`"),
        ("drop --prob often", "is not a probability"),
        ("drop --times many", "'many' is not a number from 0 to"),
        ("loss 5% --burst 0", "at least 1"),
        ("drop --match sender=p0-1", "is more than one partition"),
        ("delay 5ms --distribution odd", "'odd' is not a distribution; one of uniform"),
        ("p1:mm.gup.pin=pause now", "'now' does not belong behind a failpoint's terms"),
        ("p1:mm.gup.pin=pause(3)", "pause takes no argument"),
        ("p1:mm.gup.pin=3x", "'3x' is not a term"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("|", r"\|")):
        parse_injection(text)


def test_a_fault_concerns_those_who_send() -> None:
    assert concerns(parse_injection("link p0->p1 drop")) == (0,)
    assert concerns(parse_injection("link p0<->p1 drop")) == (0, 1)
    assert concerns(parse_injection("link *<->p1 drop")) is None
    assert concerns(parse_injection("drop --match sender=p3")) == (3,)
    assert concerns(parse_injection("split p0|p2")) == (0, 2)
    assert concerns(parse_injection("isolate p0")) is None
    assert concerns(parse_injection("p1,p2:mm.gup.pin=pause")) == (1, 2)


def test_counters_are_no_part_of_a_rule() -> None:
    rule = Rule("r", Fate.DROP)
    assert replace(rule, hits=5) == rule
