"""Why something ended: the xp_retval numbers of Linux sgi-xp. Append-only, never renumbered.

Sources 3.10. Retired numbers are kept as gaps. Numbers from 64 on are this project's own.
`XpcError` is how a reason reaches a caller.
"""

import errno
from enum import Enum, IntEnum

from xpmem_emu.errors import KernelError


class Reason(IntEnum):
    """`xp_retval`, under the kernel's names without the prefix."""

    SUCCESS = 0
    NOT_CONNECTED = 1
    CONNECTED = 2
    MSG_RECEIVED = 4
    MSG_DELIVERED = 5
    NO_WAIT = 7
    RETRY = 8
    TIMEOUT = 9
    INTERRUPTED = 10
    UNEQUAL_MSG_SIZES = 11
    INVALID_ADDRESS = 12
    NO_MEMORY = 13
    LACK_OF_RESOURCES = 14
    UNREGISTERED = 15
    ALREADY_REGISTERED = 16
    PARTITION_DOWN = 17
    NOT_LOADED = 18
    UNLOADING = 19
    BAD_MAGIC = 20
    REACTIVATING = 21
    UNREGISTERING = 22
    OTHER_UNREGISTERING = 23
    CLONE_KTHREAD = 24
    CLONE_KTHREAD_FAILED = 25
    NO_HEARTBEAT = 26
    PIO_READ_ERROR = 27
    PHYS_ADDR_REG_FAILED = 28
    BAD_VERSION = 39
    VARS_NOT_SET = 40
    NO_RSVD_PAGE_ADDR = 41
    INVALID_PARTID = 42
    LOCAL_PARTID = 43
    OTHER_GOING_DOWN = 44
    SYSTEM_GOING_DOWN = 45
    SYSTEM_HALT = 46
    SYSTEM_REBOOT = 47
    SYSTEM_POWEROFF = 48
    DISCONNECTING = 49
    OPEN_CLOSE_ERROR = 50
    DISCONNECTED = 51
    BTE_COPY_ERROR = 52
    SAL_ERROR = 53
    RSVD_PAGE_NOT_SET = 54
    PAYLOAD_TOO_BIG = 55
    UNSUPPORTED = 56
    NEED_MORE_INFO = 57
    GRU_COPY_ERROR = 58
    GRU_SEND_MQ_ERROR = 59
    BAD_CHANNEL_NUMBER = 60
    BAD_MSG_TYPE = 61
    BIOS_ERROR = 62
    UNKNOWN_REASON = 63


def reason_of(code: int) -> Reason:
    """The reason behind a number from the wire; UNKNOWN_REASON for one that gives none."""
    if code == Reason.SUCCESS:
        return Reason.UNKNOWN_REASON
    try:
        return Reason(code)
    except ValueError:
        return Reason.UNKNOWN_REASON


class Ending(Enum):
    """How a request ended that has no answer.

    None of these is a verdict on the peer. Whoever may be dead is given up by XPC itself, and
    then every request to it is SESSION_ENDED, with the reason of that.
    """

    REFUSED = "refused"
    """It is not a request that can be made here: nothing was sent."""
    NOT_SENT = "not sent"
    """There was no channel or no slot for it, in time or any more: nothing was sent."""
    INTERRUPTED = "interrupted"
    """The caller was killed; what was sent completes without it."""
    KILLED_BEFORE = "killed before"
    """The caller was killed before anything was sent."""
    TIMED_OUT = "timed out"
    """The caller's patience is over; what was sent completes without it."""
    SESSION_ENDED = "session ended"
    """The session in which it was sent is over."""

    @property
    def sent(self) -> bool:
        """Whether the peer may have carried the request out."""
        return self not in (Ending.REFUSED, Ending.NOT_SENT, Ending.KILLED_BEFORE)

    @property
    def killed(self) -> bool:
        """Whether it ended because its caller was killed."""
        return self in (Ending.INTERRUPTED, Ending.KILLED_BEFORE)


_ERRNO = {
    Reason.NOT_CONNECTED: errno.ENOTCONN,
    Reason.NO_WAIT: errno.EAGAIN,
    Reason.TIMEOUT: errno.ETIMEDOUT,
    Reason.INTERRUPTED: errno.EINTR,
    Reason.LACK_OF_RESOURCES: errno.ENOBUFS,
    Reason.ALREADY_REGISTERED: errno.EBUSY,
    Reason.UNREGISTERED: errno.ENOTCONN,
    Reason.INVALID_PARTID: errno.EINVAL,
    Reason.BAD_CHANNEL_NUMBER: errno.EINVAL,
    Reason.PAYLOAD_TOO_BIG: errno.EMSGSIZE,
}


class XpcError(KernelError):
    """A cross-partition operation did not get its answer.

    `ending` says what that means for the caller, `reason` why, `partid` which peer, `place` where
    the decision was made. The errno is EHOSTDOWN when the session ended, and for every other
    reason that means that the peer is not reachable now.
    """

    def __init__(self, ending: Ending, reason: Reason, partid: int, place: str, text: str) -> None:
        gone = ending is Ending.SESSION_ENDED
        number = errno.EHOSTDOWN if gone else _ERRNO.get(reason, errno.EHOSTDOWN)
        super().__init__(number, f"p{partid}: {text}: {reason.name} at {place}")
        self.ending = ending
        self.reason = reason
        self.partid = partid
        self.place = place
        self.text = text
