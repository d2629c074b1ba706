"""How long a request is waited for, by whom, and what it says about the peer when nobody answers.

There are two kinds of request, and a peer is judged by what it owes, never by what a caller of
ours could not wait for:

    asked    a task wants something. It may be killed and it has a patience of its own; then it
             leaves, the request is sent on until it is answered, and the peer is not judged by it
    owed     the peer must do it, or pages stay where they may not: no signal ends the wait, and
             a peer that does not answer within the patience is given up

While somebody waits, a peer that answers nothing at all, attempt after attempt, is given up too,
whatever the kind: it does not even say PENDING (docs/protocol.md; sources 3.8, 3.3).
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from msgspec import Struct

from xpmem_emu.sched import Completion, WaitQueue, Wake


class Obligation(Enum):
    """Whether a request is a wish of ours or a duty of the peer."""

    ASKED = "asked"
    OWED = "owed"

    async def sleep(self, on: WaitQueue | Completion[Any], until_ns: int | None) -> Wake:
        """Wait as the caller of such a request may: only who asked can be killed."""
        if self is Obligation.ASKED:
            return await on.wait_killable(until_ns)
        return await on.wait(until_ns)


class Patience(Struct, frozen=True):
    """How long to wait for a peer: `tries` attempts of `attempt_ns` each without any sign of
    life, and `wait_max_ns` in all even if it keeps saying PENDING."""

    attempt_ns: int
    tries: int
    wait_max_ns: int


@dataclass(slots=True, frozen=True)
class RequestTerms:
    """On which a request is made: what kind it is, how patient its caller is, and until when."""

    obligation: Obligation
    patience: Patience
    give_up_ns: int

    def from_now(self, now_ns: int) -> "RequestTerms":
        """The same with all of the patience still ahead."""
        return replace(self, give_up_ns=now_ns + self.patience.wait_max_ns)


def terms_of(obligation: Obligation, patience: Patience, now_ns: int) -> RequestTerms:
    """The terms of a request that is made now."""
    return RequestTerms(obligation, patience, now_ns + patience.wait_max_ns)
