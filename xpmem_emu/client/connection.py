"""One connection to a partition's console, without a socket: requests become frames, and frames
what became of the requests.

Who has a socket and a clock (`line`, `awaited`) moves the frames and says what time it is; nothing
here waits. A bounded number of requests is in flight, the others wait for their turn. An answer
that comes after its caller gave up is ignored. When the other end goes away everything ends, for
good: what was asked before a reboot must not be answered after it.
"""

import errno
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xpmem_emu.client.failures import TaskSignalled, XpmemError, failure_of, xpmem_error
from xpmem_emu.client.operations import OperationAnswer, OperationRequest
from xpmem_emu.client.wire import (
    BULK_MAX,
    Ask,
    Envelope,
    EventBatch,
    Say,
    pack_envelope,
    read_outcome,
    unpack_envelope,
)
from xpmem_emu.codec import BadMessage, Buffer, convert
from xpmem_emu.kernel.interface import Done

OperationOutcome = OperationAnswer | XpmemError | TaskSignalled


@dataclass(frozen=True, slots=True)
class Answered:
    """A request has come to its end."""

    ident: int
    outcome: OperationOutcome


@dataclass(frozen=True, slots=True)
class EventsCame:
    """Some of the event stream, for whoever subscribed with the request `ident`."""

    ident: int
    batch: EventBatch


class Connection:
    """What is asked over one connection, and what became of it. Times are seconds of whatever clock
    its user has."""

    def __init__(self, endpoint: str, window: int) -> None:
        """`window`: the most requests in flight."""
        self._endpoint = endpoint
        self._window = window
        self._idents = itertools.count(1)
        self._unsent: dict[int, list[Buffer]] = {}
        self._in_flight: set[int] = set()
        self._deadlines: dict[int, tuple[float, float]] = {}
        """By request: when it has waited long enough, and how long that is."""
        self._end: XpmemError | None = None

    def ask(
        self, requests: Sequence[OperationRequest], now_s: float, timeout_s: float
    ) -> list[int]:
        """Let requests be sent, each in its turn. Result: their idents. Raises XpmemError, and then
        none is: E2BIG, or what the connection ended with."""
        self.require()
        messages = {
            ident: _frames(ident, one) for one, ident in zip(requests, self._idents, strict=False)
        }
        self._unsent |= messages
        self._deadlines |= dict.fromkeys(messages, (now_s + timeout_s, timeout_s))
        return list(messages)

    def next_message(self) -> list[Buffer] | None:
        """What is to be sent now; None: nothing, until an answer or a request comes."""
        if not self._unsent or len(self._in_flight) >= self._window:
            return None
        ident = next(iter(self._unsent))
        self._in_flight.add(ident)
        return self._unsent.pop(ident)

    def receive(self, frames: Sequence[Buffer]) -> Answered | EventsCame | None:
        """What a message says; None: nothing that anybody waits for. Raises XpmemError EPROTO: that
        is no partition."""
        try:
            envelope = unpack_envelope(frames[0])
            if envelope.kind == Say.EVENTS:
                return EventsCame(envelope.id, convert(envelope.body, EventBatch))
            if envelope.id not in self._in_flight:
                return None
            outcome = _outcome(envelope, memoryview(frames[1] if len(frames) > 1 else b""))
        except BadMessage as error:
            raise xpmem_error(errno.EPROTO, f"that is no answer of a partition: {error}") from None
        self.forget([envelope.id])
        return Answered(envelope.id, outcome)

    def forget(self, idents: Iterable[int]) -> None:
        """Nobody waits for these any more, whether they were answered or not."""
        for ident in idents:
            self._unsent.pop(ident, None)
            self._in_flight.discard(ident)
            self._deadlines.pop(ident, None)

    @property
    def deadline_s(self) -> float | None:
        """When to call `expire`; None: nothing waits."""
        return min((at_s for at_s, _ in self._deadlines.values()), default=None)

    def expire(self, now_s: float) -> list[Answered]:
        """The requests that have waited long enough: ETIMEDOUT."""
        late = [
            Answered(
                ident,
                xpmem_error(
                    errno.ETIMEDOUT,
                    f"no answer from {self._endpoint} within {timeout_s:g} s",
                    "xpmem-emu ps (is the partition stopped?), or a longer timeout",
                ),
            )
            for ident, (at_s, timeout_s) in self._deadlines.items()
            if at_s <= now_s
        ]
        self.forget(one.ident for one in late)
        return late

    def lose(self) -> list[Answered]:
        """The other end is gone: ECONNRESET for all that waits."""
        return self.end(
            xpmem_error(
                errno.ECONNRESET,
                f"the partition at {self._endpoint} went away",
                "xpmem-emu ps; connect again",
            )
        )

    def end(self, why: XpmemError) -> list[Answered]:
        """Nothing more is sent or answered; what that means for all that waits."""
        self._end = self._end or why
        ended = [Answered(ident, why) for ident in self._deadlines]
        self.forget(one.ident for one in ended)
        return ended

    @property
    def ended(self) -> bool:
        """Whether nothing more can be asked."""
        return self._end is not None

    def require(self) -> None:
        """Raises XpmemError when it has ended."""
        if self._end is not None:
            # A new one each time: an exception remembers everywhere that it was raised.
            raise xpmem_error(self._end.errno or 0, self._end.cause, self._end.remedy)


def answers_in(outcomes: Iterable[OperationAnswer | BaseException]) -> list[OperationAnswer]:
    """All of them, if all are answers. Raises the first failure."""
    answers = []
    for outcome in outcomes:
        if not isinstance(outcome, OperationAnswer):
            raise outcome
        answers.append(outcome)
    return answers


def ping() -> list[Buffer]:
    """A message that keeps the lease, outside of the window; nobody waits for its answer."""
    return _frames(0, OperationRequest(None, kind=Ask.PING))


def _frames(ident: int, request: OperationRequest) -> list[Buffer]:
    if len(request.bulk) > BULK_MAX:
        raise xpmem_error(
            errno.E2BIG,
            f"{len(request.bulk)} bytes in one request, at most {BULK_MAX} are taken",
            "move it in pieces",
        )
    head = pack_envelope(ident, request.kind, request.body)
    return [head, request.bulk] if len(request.bulk) else [head]


def _outcome(envelope: Envelope, bulk: memoryview) -> OperationOutcome:
    outcome = read_outcome(envelope, bulk)
    if isinstance(outcome, Done):
        return OperationAnswer(outcome.value, outcome.bulk)
    return failure_of(outcome)
