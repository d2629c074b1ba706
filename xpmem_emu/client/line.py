"""The blocking client's transport: a socket and a clock for one connection.

A line serves one thread at a time. It never reconnects: when its partition goes away it says so at
once and is thrown away.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import zmq

from xpmem_emu.client.connection import (
    Answered,
    Connection,
    EventsCame,
    OperationOutcome,
    answers_in,
)
from xpmem_emu.client.dial import Dial
from xpmem_emu.client.failures import OwnProcess
from xpmem_emu.client.loop import receive_now, send_now, wait_for
from xpmem_emu.client.operations import OperationAnswer, OperationRequest
from xpmem_emu.client.wire import Ask, BootFacts, EventBatch, Hello
from xpmem_emu.codec import convert

if TYPE_CHECKING:
    from xpmem_emu.cluster.keys import Credentials

WINDOW = 16
"""Requests in flight."""
_SLICE_S = 0.2
"""How often a silent line is looked at: does the other end still exist?"""


class Line:
    """A connection that said hello. `facts` is what the partition answered."""

    def __init__(
        self, endpoint: str, hello: Hello, timeout: float, shown: "Credentials | None"
    ) -> None:
        """Raises XpmemError when nobody answers within `timeout` seconds."""
        self._process = OwnProcess()
        self._connection = Connection(endpoint, WINDOW)
        dial = Dial(endpoint, shown)
        self._socket = dial.socket
        try:
            if not dial.connected(timeout):
                raise dial.unanswered()
            (answer,) = self.exchange([OperationRequest(hello, kind=Ask.HELLO)], timeout)
        except BaseException:
            dial.give_up()
            if self.broken:
                # Cut as soon as it was made: the partition hears of a connection a moment later.
                raise dial.refusal() from None
            raise
        self.facts = convert(answer.value, BootFacts)

    @property
    def broken(self) -> bool:
        """Whether the other end is gone, so that the line is of no more use."""
        return self._connection.ended

    def close(self) -> None:
        """Close the connection; the session goes on."""
        self._socket.close()

    def exchange(
        self, requests: Sequence[OperationRequest], timeout: float
    ) -> list[OperationAnswer]:
        """All answers, in the order of the requests. Raises the first failure after every request
        was answered, or could not be: XpmemError ETIMEDOUT or ECONNRESET."""
        return list(self._ask(requests, timeout).values())

    def subscribe(self, timeout: float) -> int:
        """Ask for the live events. Result: the ident that they carry. Raises XpmemError."""
        (ident,) = self._ask([OperationRequest(None, kind=Ask.SUBSCRIBE)], timeout)
        return ident

    def next_events(self, subscription: int) -> EventBatch:
        """The next events, however long it takes. Raises XpmemError ECONNRESET."""
        while True:
            for one in self._advance(None):
                if isinstance(one, EventsCame) and one.ident == subscription:
                    return one.batch
            self._connection.require()

    def _ask(
        self, requests: Sequence[OperationRequest], timeout: float
    ) -> dict[int, OperationAnswer]:
        """The answers by the idents of their requests, in the order of these."""
        now_s = time.monotonic()
        asked = self._connection.ask(requests, now_s, timeout)
        outcomes: dict[int, OperationOutcome] = {}
        try:
            while len(outcomes) < len(asked):
                for one in self._advance(now_s + timeout):
                    if isinstance(one, Answered):
                        outcomes[one.ident] = one.outcome
        finally:
            self._connection.forget(asked)
        return dict(zip(asked, answers_in(outcomes[ident] for ident in asked), strict=True))

    def _advance(self, deadline_s: float | None) -> Sequence[Answered | EventsCame]:
        """Send what may be sent, and wait a little for what comes."""
        self._process.require()
        while (frames := self._connection.next_message()) is not None:
            if not send_now(self._socket, frames):
                return self._connection.lose()
        left_s = _SLICE_S
        if deadline_s is not None:
            left_s = min(_SLICE_S, max(0.0, deadline_s - time.monotonic()))
        if wait_for([(self._socket, zmq.POLLIN)], left_s):
            came = self._connection.receive(receive_now(self._socket))
            return [came] if came is not None else []
        if not wait_for([(self._socket, zmq.POLLOUT)], 0):
            return self._connection.lose()
        return self._connection.expire(time.monotonic())
