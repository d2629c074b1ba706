"""Attacks of a partition: frames by p2's key, in the session that p2 has with p0 or in none.

What they cost p2 is its own affair; what they cost p0 and p1 is counted.
"""

from collections.abc import Callable

from tests.hostile.decoders import mutated, seeds
from tests.hostile.ground import Ground
from xpmem_emu.fields import RANGES_MAX, WINDOW_MAX
from xpmem_emu.xpc.frame import seal
from xpmem_emu.xpc.messages import (
    ENTRIES_MAX,
    ActivateReq,
    Amo,
    AmoReply,
    Attach,
    AttachReply,
    CloseRequest,
    Copy,
    CopyReply,
    DeactivateReq,
    Detach,
    Evict,
    Fault,
    FaultReply,
    FindName,
    Get,
    GetReply,
    Heartbeat,
    Invalidate,
    InvalidateAck,
    Message,
    OpenRequest,
    Pending,
    RecallEntry,
    Release,
    RsvdPage,
    RsvdPageRead,
    SyncActState,
)

NUMBERS = (0, 1, 127, 128, 1 << 20, (1 << 32) - 1, 1 << 40, (1 << 62) + 1, (1 << 63) - 1)
SEGID = 1 << 40 | 5


def mutated_frames(ground: Ground, count: int) -> None:
    """Messages of every type with a part replaced, doubled or left out, sealed rightly."""
    peer, samples = ground.peer(), seeds("frame")
    for _ in ground.times(count):
        array = mutated(ground.dice.choice(samples), ground.dice.randrange)[1:]
        peer.raw([seal(array)] * ground.dice.choice((1, 1, 1, 2, 3)))


def forged(ground: Ground, count: int) -> None:
    """Messages in the name of p1, of a boot that is yet to come."""
    peer = ground.peer()
    for _ in ground.times(count):
        peer.say(Heartbeat(1 << 40, False, 0, False), src=1, mine=1 << 60, theirs=0)
        peer.say(DeactivateReq(26), src=1)


def wrong_sessions(ground: Ground, count: int) -> None:
    """Messages of its own sessions that are over, that are yet to come, and that p0 never had."""
    peer = ground.peer()
    for number in ground.times(count):
        mine = (0, 1, peer.mine - 1, peer.mine + 1, peer.mine + (1 << 16), 1 << 62)[number % 6]
        theirs = (0, peer.theirs - 1, peer.theirs + 1, (1 << 63) - 1)[number % 4]
        peer.say(Fault(SEGID, 3, 0, 32), number, mine=mine, theirs=theirs)
        peer.say(Evict(SEGID, [(0, 1 << 20)]), number, mine=mine, theirs=theirs)


def replayed(ground: Ground, count: int) -> None:
    """The same numbered requests again and again."""
    peer = ground.peer()
    for number in ground.times(count):
        peer.say(Get(SEGID, 2 << 48 | 7, 2, 0, [], True), number % 4)
        peer.say(OpenRequest(0, 128, 16), number % 4)


def wrapped_numbers(ground: Ground, count: int) -> None:
    """Numbers from the ends of their range."""
    peer = ground.peer()
    for number in ground.times(count):
        peer.say(FindName("nosuch"), NUMBERS[number % len(NUMBERS)])
        peer.say(InvalidateAck(), NUMBERS[number % len(NUMBERS)])


def _repeated(ground: Ground, count: int, messages: Callable[[int], list[Message]]) -> None:
    peer = ground.peer()
    for number in ground.times(count):
        for message in messages(number):
            peer.say(message, ground.dice.randrange(256))


def of_nobody(ground: Ground, count: int) -> None:
    """Gives back, recalls and releases what it never had."""
    _repeated(
        ground,
        count,
        lambda number: [
            Evict(SEGID + number, [(0, (1 << 36) - 1)]),
            Release(number + 1),
            Invalidate([RecallEntry(SEGID + number, 1 << 62, [(0, (1 << 36) - 1)], "gone")]),
            Detach(number + 1, number, [(0, 1 << 30)]),
        ],
    )


def of_others(ground: Ground, count: int) -> None:
    """Asks for, attaches and touches what others have, by guessing."""
    _repeated(
        ground,
        count,
        lambda number: [
            Get(SEGID + number, 2 << 48 | number + 1, 2, 0, [0] * 64, True),
            Attach(1 << 48 | number + 1, number, -(1 << 62), 1 << 63),
            Fault(1 << 48 | number + 1, 1 << 35, 0, 1 << 20),
            Copy(1 << 48 | number + 1, 0, 1 << 24, False),
            Amo(1 << 48 | number + 1, 8, 0, 1, 0),
        ],
    )


def answers_to_nothing(ground: Ground, count: int) -> None:
    """Answers that nobody waits for, and answers again."""
    _repeated(
        ground,
        count,
        lambda number: [
            FaultReply(0, "", 1 << 62, [(0, number, 1 << 20, 0)] * 8),
            GetReply(0, "", 1 << 63),
            AttachReply(0, ""),
            CopyReply(0, ""),
            AmoReply(0, "", 0),
            InvalidateAck(),
            Pending(),
        ],
    )


def long_lists(ground: Ground, count: int) -> None:
    """The longest messages there are: as many ranges, entries and extents as fit."""
    peer = ground.peer()
    ranges = [(2 * page, 1) for page in range(RANGES_MAX)]
    entries = [RecallEntry(SEGID + n, 1, [(0, 1)], "x" * 240) for n in range(ENTRIES_MAX)]
    longest = [
        Evict(SEGID, ranges),
        Invalidate([RecallEntry(SEGID, 1, ranges, "")]),
        Invalidate(entries),
        Detach(1, 1, ranges),
        FaultReply(0, "", 1, [(page, 2 * page, 1, 0) for page in range(WINDOW_MAX)]),
    ]
    for number in ground.times(count):
        peer.say(longest[number % len(longest)], number)


def long_bulk(ground: Ground, count: int) -> None:
    """Bulk of a payload and of more, with messages that may have some and that may not."""
    peer = ground.peer()
    for number in ground.times(count):
        peer.say(Copy(1, 0, 4 << 20, True), number, bulk=bytes((4 << 20) + number % 2))


def control_storm(ground: Ground, count: int) -> None:
    """Activates, deactivates, opens, closes and asks for pages without end."""
    _repeated(
        ground,
        count,
        lambda number: [
            RsvdPageRead(),
            ActivateReq(number % 5),
            SyncActState(number % 5),
            OpenRequest(number % 8, 1 << 24, 4096),
            CloseRequest(number % 8, 26),
            *([DeactivateReq(number % 30)] if number % 10 == 0 else []),
        ],
    )


def false_pages(ground: Ground, count: int) -> None:
    """Reserved pages that say it has all memory, other domains, arenas that are files of others."""
    _repeated(
        ground,
        count,
        lambda number: [
            RsvdPage(
                3,
                0,
                number % 256,
                number + 1,
                256,
                ("A", "B")[number % 2],
                ("/etc/passwd", "memory:p0.1", "../../../dev/zero", "")[number % 4],
                (1 << 36) - 1,
            ),
            ActivateReq(2),
        ],
    )


def false_clocks(ground: Ground, count: int) -> None:
    """Heartbeats from the end of time, from the past, offline and not."""
    _repeated(
        ground,
        count,
        lambda number: [
            Heartbeat(
                ((1 << 63) - 1, 0, number, 1 << 40)[number % 4],
                bool(number % 3),
                number % 5,
                bool(number % 2),
            )
        ],
    )
