"""A connection without a socket: what is sent when, and what becomes of what was asked."""

import errno

import pytest

from xpmem_emu.client.connection import Answered, Connection, EventsCame, answers_in
from xpmem_emu.client.failures import SigBus, XpmemError
from xpmem_emu.client.operations import OperationAnswer, OperationRequest
from xpmem_emu.client.wire import (
    BULK_MAX,
    Ask,
    EventBatch,
    Say,
    answer_frames,
    pack_envelope,
    unpack_envelope,
)
from xpmem_emu.errors import Signal, SignalInfo
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Done, Failed, Raised

WINDOW = 2
STATUS = OperationRequest(calls.Status())


@pytest.fixture
def connection() -> Connection:
    return Connection("ipc://nowhere", WINDOW)


def sent(connection: Connection) -> list[int]:
    """The idents of all that is to be sent now."""
    idents = []
    while (frames := connection.next_message()) is not None:
        idents.append(unpack_envelope(frames[0]).id)
    return idents


def numbers(ended: list[Answered]) -> dict[int, int | None]:
    """The errno of each request that failed."""
    outcomes = {one.ident: one.outcome for one in ended}
    return {ident: e.errno for ident, e in outcomes.items() if isinstance(e, XpmemError)}


def test_a_window_of_requests_is_in_flight_and_the_others_have_their_turn(
    connection: Connection,
) -> None:
    a, b, c = connection.ask([STATUS] * 3, 0, 60)
    assert sent(connection) == [a, b]
    assert connection.receive(answer_frames(b, Done("fine", b"bulk"))) == Answered(
        b, OperationAnswer("fine", memoryview(b"bulk"))
    )
    assert sent(connection) == [c]


def test_a_request_that_nobody_waits_for_gives_its_turn_away(connection: Connection) -> None:
    a, b, c, d = connection.ask([STATUS] * 4, 0, 60)
    assert sent(connection) == [a, b]
    connection.forget([b, c])
    assert sent(connection) == [d]
    assert connection.receive(answer_frames(b, Done(None))) is None


def test_what_comes_too_late_is_no_answer_any_more(connection: Connection) -> None:
    (early,) = connection.ask([STATUS], 0, 1)
    late, later = connection.ask([STATUS] * 2, 0, 2)
    assert sent(connection) == [early, late]
    assert connection.deadline_s == 1
    assert connection.expire(0.5) == []
    (ended,) = connection.expire(1)
    assert numbers([ended]) == {early: errno.ETIMEDOUT}
    assert "no answer from ipc://nowhere within 1 s" in str(ended.outcome)
    assert connection.receive(answer_frames(early, Done(None))) is None
    assert numbers(connection.expire(9)) == {late: errno.ETIMEDOUT, later: errno.ETIMEDOUT}
    assert sent(connection) == []
    assert connection.deadline_s is None


def test_all_that_waits_ends_with_the_other_end_and_nothing_is_asked_afterwards(
    connection: Connection,
) -> None:
    asked = connection.ask([STATUS] * 3, 0, 60)
    sent(connection)
    assert numbers(connection.lose()) == dict.fromkeys(asked, errno.ECONNRESET)
    assert connection.ended
    # Closed later: why it ended stays what it was.
    assert connection.end(XpmemError(errno.EBADF, "closed")) == []
    for _ in range(2):
        with pytest.raises(ConnectionResetError, match="went away") as caught:
            connection.ask([STATUS], 0, 60)
        assert len(caught.traceback) < 4
    assert sent(connection) == []


def test_of_requests_that_cannot_all_be_sent_none_is(connection: Connection) -> None:
    too_big = OperationRequest(calls.Store(pid=1, address=0), bytes(BULK_MAX + 1))
    with pytest.raises(XpmemError, match="pieces") as caught:
        connection.ask([STATUS, too_big], 0, 60)
    assert caught.value.errno == errno.E2BIG
    assert sent(connection) == []
    assert connection.deadline_s is None


def test_a_failure_is_an_outcome_and_the_first_one_is_raised(connection: Connection) -> None:
    a, b = connection.ask([STATUS] * 2, 0, 60)
    sent(connection)
    bus = Raised(SignalInfo(Signal.SIGBUS, "gone"))
    second = connection.receive(answer_frames(b, Failed(errno.ENOENT, "no such thing", "")))
    first = connection.receive(answer_frames(a, bus))
    assert isinstance(first, Answered)
    assert isinstance(second, Answered)
    with pytest.raises(SigBus, match="gone"):
        answers_in([first.outcome, second.outcome])
    with pytest.raises(FileNotFoundError):
        answers_in([OperationAnswer(None), second.outcome])


def test_events_are_told_from_answers(connection: Connection) -> None:
    (subscription,) = connection.ask([OperationRequest(None, kind=Ask.SUBSCRIBE)], 0, 60)
    sent(connection)
    batch = EventBatch([{"event": "mm:fault"}], 3)
    frames = [pack_envelope(subscription, Say.EVENTS, batch)]
    assert connection.receive(frames) == EventsCame(subscription, batch)
    assert isinstance(connection.receive(answer_frames(subscription, Done(None))), Answered)


@pytest.mark.parametrize(
    "frame",
    [b"", b"GET / HTTP/1.1", pack_envelope(1, "hello", None), pack_envelope(1, Say.EVENTS, 5)],
)
def test_who_is_no_partition_is_told_so(connection: Connection, frame: bytes) -> None:
    connection.ask([STATUS], 0, 60)
    sent(connection)
    with pytest.raises(XpmemError, match="no answer of a partition") as caught:
        connection.receive([frame])
    assert caught.value.errno == errno.EPROTO
