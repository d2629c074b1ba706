"""The message diagram is drawn from the event stream alone."""

from xpmem_emu.demo.diagram import Note, draw_demo_diagram, drawn_messages

EVENTS = [
    {
        "event": "xpc:send",
        "partid": 0,
        "peer": 1,
        "kind": "INVALIDATE",
        "number": 7,
        "time_ns": 1_000_000,
    },
    {
        "event": "xpc:send",
        "partid": 0,
        "peer": 2,
        "kind": "INVALIDATE",
        "number": 9,
        "time_ns": 1_100_000,
    },
    {
        "event": "xpc:send",
        "partid": 0,
        "peer": 2,
        "kind": "HEARTBEAT",
        "number": 0,
        "time_ns": 1_150_000,
    },
    {
        "event": "xpc:receive",
        "partid": 1,
        "peer": 0,
        "kind": "INVALIDATE",
        "number": 7,
        "time_ns": 1_500_000,
    },
    {
        "event": "xpc:send",
        "partid": 1,
        "peer": 0,
        "kind": "INVALIDATE_ACK",
        "number": 7,
        "time_ns": 2_000_000,
    },
    {
        "event": "xpc:receive",
        "partid": 0,
        "peer": 1,
        "kind": "INVALIDATE_ACK",
        "number": 7,
        "time_ns": 2_300_000,
    },
]
KINDS = ("INVALIDATE", "INVALIDATE_ACK")


def test_sends_are_paired_with_their_receives() -> None:
    found = [(a.source, a.target, a.label, a.received_ns) for a in drawn_messages(EVENTS, KINDS)]
    assert found == [
        (0, 1, "INVALIDATE 7", 1_500_000),
        (0, 2, "INVALIDATE 9", None),
        (1, 0, "INVALIDATE_ACK 7", 2_300_000),
    ]


def test_the_drawing_shows_direction_latency_loss_and_notes() -> None:
    text = draw_demo_diagram(
        ["p0", "p1", "p2"], [*drawn_messages(EVENTS, KINDS), Note(1_600_000, 1, "4 PTEs dropped")]
    )
    assert text.splitlines() == [
        "            p0                            p1                            p2",
        "       0ns  o-------- INVALIDATE 7 ------>|                             |  +500us",
        "     100us  o----------------------- INVALIDATE 9 ---------------------x|  lost",
        "     600us  |                             * 4 PTEs dropped              |",
        "       1ms  |<----- INVALIDATE_ACK 7 -----o                             |  +300us",
    ]
