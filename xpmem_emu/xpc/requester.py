"""Who asked for a piece of work, and in which session.

A request is carried out in a kernel thread that may sleep for long, past the end of the session
in which it was asked, and past every limit on how long the end of a session is waited for. What
it does then would be done to the next session, to which it means something else: an EVICT of
pages that are held again, a GET of a permit that nobody is going to use. So work carries its
requester, asks it again after every sleep, and is refused once that session is over:

    old session                       new session
    EVICT(5) received, sleeps
    session ends: all is given back
                                      FAULT(5): page 5 is held again
    wakes: require_current() raises
                                      page 5 is still held

No clock is trusted for this.
"""

from xpmem_emu.xpc.reasons import Ending, Reason, XpcError


class Requester:
    """A partition in one of its sessions with us. `session` is its incarnation there."""

    __slots__ = ("_ended", "partid", "session")

    def __init__(self, partid: int, session: int) -> None:
        self.partid = partid
        self.session = session
        self._ended = False

    @property
    def current(self) -> bool:
        """Whether it can still get an answer."""
        return not self._ended

    def require_current(self) -> None:
        """To be asked after every sleep. Raises XpcError SESSION_ENDED."""
        if self._ended:
            raise XpcError(
                Ending.SESSION_ENDED,
                Reason.DISCONNECTED,
                self.partid,
                "xpc/requester",
                "whoever asked for this has gone",
            )

    def end(self) -> None:
        """Nothing is done for it any more."""
        self._ended = True
