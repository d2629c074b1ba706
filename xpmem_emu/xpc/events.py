"""What XPC says to the event stream.

Changes of state are always told, with reason and place. Of messages, the numbered ones are told
at both ends, so that "nothing was sent" can be asserted on the stream; heartbeats and the other
unnumbered control messages are not, or they would drown everything else.
"""

from xpmem_emu.trace import Event


class PartitionChange(Event, frozen=True, tag="xpc:partition"):
    """The act_state towards `peer` changed. `incarnation` is the peer's, 0 when unknown."""

    peer: int
    state: str
    reason: str
    place: str
    incarnation: int


class PartitionGone(Event, frozen=True, tag="xpc:gone"):
    """`peer` proved that it left the session in which it had `incarnation`."""

    peer: int
    incarnation: int


class DisengageTimeout(Event, frozen=True, tag="xpc:disengage_timeout"):
    """The peer did not say in time that it let go; it may still be out there."""

    peer: int
    incarnation: int


class ChannelChange(Event, frozen=True, tag="xpc:channel"):
    """A channel changed its state."""

    peer: int
    channel: int
    state: str


class _Numbered(Event, frozen=True):
    peer: int
    kind: str
    channel: int
    number: int


class _InSession(_Numbered, frozen=True):
    incarnation: int
    """The sender's, in the session of the message."""


class Sent(_InSession, frozen=True, tag="xpc:send"):
    """A numbered message was handed to the interconnect for the first time."""


class Received(_InSession, frozen=True, tag="xpc:receive"):
    """A numbered message of the current session arrived."""


class Retransmit(_InSession, frozen=True, tag="xpc:retransmit"):
    """A request was sent again, or a remembered answer was."""


class Refused(_Numbered, frozen=True, tag="xpc:refused"):
    """A request found no thread and was dropped; its sender will send it again."""


class Duplicate(_Numbered, frozen=True, tag="xpc:duplicate"):
    """A numbered message arrived again and was not applied again."""


class LateReply(_Numbered, frozen=True, tag="xpc:late_reply"):
    """The answer came after its caller had gone; the slot is free again."""


class Stale(Event, frozen=True, tag="xpc:stale"):
    """A frame of another session was dropped."""

    peer: int
    kind: str
    src_incarnation: int
    dst_incarnation: int


class BadFrame(Event, frozen=True, tag="xpc:bad_frame"):
    """A frame was dropped because it is not what anybody here accepts."""

    cause: str
