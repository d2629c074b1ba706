"""One connection of the blocking client to a partition's console.

A line serves one thread at a time. Requests are pipelined, a bounded number of them in flight;
answers are matched by id, so an answer that comes after its caller gave up is ignored. A line
never reconnects: when its partition goes away it says so at once and is thrown away, because what
was asked before a reboot must not be answered after it.
"""

import errno
import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import zmq

from xpmem_emu.client.dial import Dial
from xpmem_emu.client.failures import OwnProcess, TaskSignalled, XpmemError, failure_of, xpmem_error
from xpmem_emu.client.loop import receive_now, send_now, wait_for
from xpmem_emu.client.operations import OperationAnswer, OperationRequest
from xpmem_emu.client.wire import (
    BULK_MAX,
    Ask,
    BootFacts,
    Envelope,
    EventBatch,
    Hello,
    Say,
    pack_envelope,
    read_outcome,
    unpack_envelope,
)
from xpmem_emu.codec import BadMessage, convert
from xpmem_emu.kernel.interface import Done

if TYPE_CHECKING:
    from xpmem_emu.cluster.keys import Credentials

WINDOW = 16
"""Requests in flight."""
_SLICE_S = 0.2
"""How often a silent line is looked at: does the other end still exist?"""

_ids = itertools.count(1)

CallFailure = XpmemError | TaskSignalled


class Connection:
    """A connection that said hello. `facts` is what the partition answered; `broken`: the other
    end is gone, so the line is of no more use."""

    def __init__(
        self, endpoint: str, hello: Hello, timeout: float, shown: "Credentials | None"
    ) -> None:
        """Raises XpmemError when nobody answers within `timeout` seconds."""
        self.broken = False
        self._process = OwnProcess()
        self._endpoint = endpoint
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

    def close(self) -> None:
        """Close the connection; the session goes on."""
        self._socket.close()

    def exchange(
        self, requests: Sequence[OperationRequest], timeout: float
    ) -> list[OperationAnswer]:
        """All answers, in the order of the requests. Raises the first failure after every
        request was answered; XpmemError ETIMEDOUT or ECONNRESET when that cannot be."""
        deadline = time.monotonic() + timeout
        outcomes: dict[int, OperationAnswer | CallFailure] = {}
        pending: dict[int, int] = {}
        unsent = 0
        while unsent < len(requests) or pending:
            while unsent < len(requests) and len(pending) < WINDOW:
                pending[self._send(requests[unsent])] = unsent
                unsent += 1
            ident, outcome = self._receive_answer(deadline, timeout)
            if ident in pending:
                outcomes[pending.pop(ident)] = outcome
        return [_unwrapped(outcomes[index]) for index in range(len(requests))]

    def subscribe(self, timeout: float) -> int:
        """Ask for the live events. Result: the id that they carry. Raises XpmemError."""
        ident = self._send(OperationRequest(None, kind=Ask.SUBSCRIBE))
        deadline = time.monotonic() + timeout
        while True:
            answered, outcome = self._receive_answer(deadline, timeout)
            if answered == ident:
                _unwrapped(outcome)
                return ident

    def next_events(self, subscription: int) -> EventBatch:
        """The next events, however long it takes. Raises XpmemError ECONNRESET."""
        while True:
            envelope, _ = self._receive(None)
            if envelope is not None and envelope.id == subscription:
                return convert(envelope.body, EventBatch)

    def _send(self, request: OperationRequest) -> int:
        self._process.require()
        ident = next(_ids)
        if not send_now(self._socket, request_frames(ident, request)):
            raise self._reset()
        return ident

    def _receive_answer(
        self, deadline: float, timeout: float
    ) -> tuple[int, OperationAnswer | CallFailure]:
        envelope, bulk = self._receive(deadline)
        if envelope is None:
            raise xpmem_error(
                errno.ETIMEDOUT,
                f"no answer from {self._endpoint} within {timeout:g} s",
                "xpmem-emu ps (is the partition stopped?), or a longer timeout",
            )
        if envelope.kind == Say.EVENTS:
            return 0, OperationAnswer(None)
        try:
            return envelope.id, read_answer(envelope, bulk)
        except (XpmemError, TaskSignalled) as failure:
            return envelope.id, failure

    def _receive(self, deadline: float | None) -> tuple[Envelope | None, bytes | memoryview]:
        """The next message; None at the deadline. Raises XpmemError ECONNRESET."""
        self._process.require()
        while True:
            left_s = _SLICE_S
            if deadline is not None:
                left_s = min(_SLICE_S, max(0.0, deadline - time.monotonic()))
            if wait_for([(self._socket, zmq.POLLIN)], left_s):
                return read_message(receive_now(self._socket))
            if not wait_for([(self._socket, zmq.POLLOUT)], 0):
                raise self._reset()
            if deadline is not None and time.monotonic() >= deadline:
                return None, b""

    def _reset(self) -> XpmemError:
        self.broken = True
        return xpmem_error(
            errno.ECONNRESET,
            f"the partition at {self._endpoint} went away",
            "xpmem-emu ps; connect again",
        )


def _unwrapped(outcome: OperationAnswer | CallFailure) -> OperationAnswer:
    if isinstance(outcome, OperationAnswer):
        return outcome
    raise outcome


def request_frames(ident: int, request: OperationRequest) -> list[bytes | bytearray | memoryview]:
    """The frames of one request. Raises XpmemError E2BIG for what no partition takes."""
    if len(request.bulk) > BULK_MAX:
        raise xpmem_error(
            errno.E2BIG,
            f"{len(request.bulk)} bytes in one request, at most {BULK_MAX} are taken",
            "move it in pieces",
        )
    head = pack_envelope(ident, request.kind, request.body)
    return [head, request.bulk] if len(request.bulk) else [head]


def read_message(frames: list[bytes | bytearray | memoryview]) -> tuple[Envelope, memoryview]:
    """Envelope and bulk of a message. Raises XpmemError EPROTO: this is no partition."""
    try:
        return unpack_envelope(frames[0]), memoryview(frames[1] if len(frames) > 1 else b"")
    except BadMessage as error:
        raise xpmem_error(errno.EPROTO, f"that is no answer of a partition: {error}") from None


def read_answer(envelope: Envelope, bulk: bytes | memoryview) -> OperationAnswer:
    """The answer that a message carries. Raises the failure that it carries instead."""
    try:
        outcome = read_outcome(envelope, bulk)
    except BadMessage as error:
        raise xpmem_error(errno.EPROTO, f"that is no answer of a partition: {error}") from None
    if isinstance(outcome, Done):
        return OperationAnswer(outcome.value, outcome.bulk)
    raise failure_of(outcome)
