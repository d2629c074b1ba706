"""Text of others: what may come in, and how it is shown."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
import yaml

from tests.xpc.test_frame import by_hand
from xpmem_emu.cli.events import line
from xpmem_emu.cli.failure import ExitCode, Failure
from xpmem_emu.cli.output import Format, show_record, show_rows
from xpmem_emu.client.failures import failure_of
from xpmem_emu.client.injection_requests import AnyInjectionRequest
from xpmem_emu.client.wire import Hello
from xpmem_emu.codec import BadMessage
from xpmem_emu.errors import Signal, SignalInfo
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.interface import Failed, Raised
from xpmem_emu.live.console.requests import Asked, read_hello
from xpmem_emu.text import TEXT_MAX, text, visible
from xpmem_emu.xpc.frame import ChannelNumber, Header, decode_frame
from xpmem_emu.xpc.messages import MESSAGES, RecallEntry, RsvdPage

UNSEEN = ("\n", "\r", "\x1b[2J", "\x07", "\x00", "\x7f", "\x9b2J", "\u2028", "\u202e", "\u2066")
FORGED = "x\n    12.000000 p0   init             xpmem:expelled\x1b]0;owned\x07\u202e"
each_unseen = pytest.mark.parametrize("unseen", UNSEEN, ids=ascii)


def everything_that_comes_in() -> list[type[msgspec.Struct]]:
    return [
        *get_args(calls.AnyCall),
        *get_args(breaking.BreakingCall),
        *MESSAGES.values(),
        RecallEntry,
        Hello,
        Asked,
        *get_args(AnyInjectionRequest),
    ]


def texts(hint: Any, meta: msgspec.Meta | None = None) -> Iterator[msgspec.Meta | None]:
    """What is declared of each text in a type."""
    if get_origin(hint) is Annotated:
        inner, *rest = get_args(hint)
        metas = [one for one in rest if isinstance(one, msgspec.Meta)]
        yield from texts(inner, metas[-1] if metas else None)
    elif hint is str:
        yield meta
    else:
        for each in get_args(hint):
            yield from texts(each)


@pytest.mark.parametrize("kind", everything_that_comes_in(), ids=lambda kind: kind.__name__)
def test_every_text_of_others_has_a_length_and_a_pattern(kind: type[msgspec.Struct]) -> None:
    for name, hint in get_type_hints(kind, include_extras=True).items():
        for meta in texts(hint):
            assert meta is not None, name
            assert meta.max_length is not None, name
            assert meta.pattern is not None, name
            word = Annotated[str, msgspec.Meta(pattern=meta.pattern)]
            for unseen in UNSEEN:
                with pytest.raises(msgspec.ValidationError):
                    msgspec.convert(f"a{unseen}b", word)


@each_unseen
def test_a_client_or_a_peer_with_such_a_name_is_refused(unseen: str) -> None:
    hello = msgspec.msgpack.encode({"session": "ab" * 8, "client": f"a{unseen}"})
    with pytest.raises(BadMessage):
        read_hello(hello)
    page = RsvdPage(3, 0, 1, 1, 2, f"A{unseen}", "", 1)
    frame = by_hand(Header(1, 1, 1, ChannelNumber.ADMIN, 0), page)
    with pytest.raises(BadMessage, match="regex"):
        decode_frame([frame])


@each_unseen
def test_a_cause_that_a_message_carries_is_made_visible(unseen: str) -> None:
    assert text(f"a{unseen}b") == visible(f"a{unseen}b") != f"a{unseen}b"
    assert len(text(unseen * TEXT_MAX)) == TEXT_MAX
    assert visible("Größe ≥ 1 → 2 🙂") == "Größe ≥ 1 → 2 🙂"


@each_unseen
def test_what_a_partition_refuses_with_is_one_line(unseen: str) -> None:
    refused = failure_of(Failed(22, f"because{unseen}", f"try{unseen}"))
    signalled = failure_of(Raised(SignalInfo(Signal.SIGBUS, f"because{unseen}")))
    for said in (str(refused), str(signalled), str(Failure(ExitCode.FAILED, "load", unseen + "x"))):
        assert not set(unseen) & set(said) & set("".join(UNSEEN) + "\n") - set("[2J")
    assert "\n" not in str(refused)


@pytest.mark.parametrize("output", list(Format))
def test_nothing_that_is_shown_commands_a_terminal_or_forges_a_line(output: Format) -> None:
    event = {
        "time_ns": 1,
        "partition": "p0",
        "thread": FORGED,
        "event": "a",
        "reason": FORGED,
        "nested": {FORGED: [FORGED]},
    }
    rows = show_rows("events", [event], output)
    shown = [rows, show_record("event", event, output), line(event)]
    harmless = set("\n[2J")
    for one in shown:
        assert not set(one) & set("".join(UNSEEN)) - harmless
        assert not any(each.lstrip().startswith("12.000000") for each in one.splitlines())
    if output is Format.JSONL:
        assert json.loads(rows)["reason"] == FORGED
    if output.is_document:
        read = json.loads if output is Format.JSON else yaml.safe_load
        assert read(rows)["items"][0]["reason"] == FORGED
        assert read(show_record("x", {"a": "\u202e"}, output))["a"] == "\u202e"
