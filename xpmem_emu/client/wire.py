"""The console protocol: what clients and a partition say to each other.

Request  [version, id, kind, body] as MessagePack, then bulk frames
Answer   [version, id, kind, body] as MessagePack, then bulk frames

The id is the client's and comes back in the answer; a subscription's id comes back in each of
its event messages. How requests are read is the business of `live.console.requests`. One session
may use several connections: each says hello with the session's name.
"""

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from xpmem_emu import codec
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import SignalInfo
from xpmem_emu.fields import ShortText
from xpmem_emu.kernel.calls import Value
from xpmem_emu.kernel.interface import Done, Failed, Outcome, Raised

CONSOLE_VERSION = 1
BULK_MAX = 1 << 20
"""Bytes of bulk in one request, or asked for with one: longer transfers come in pieces. A piece is
decrypted, and copied, in one go, so others may have to wait for one."""
FRAME_MAX = BULK_MAX + (1 << 16)
"""Bytes of any frame of a request. A longer one costs its sender the connection as soon as its size
is read; between the two there is a refusal."""
MESSAGE_MAX = (1 << 26) + 4096
"""Bytes of one frame: the largest Load, and some room."""


class Ask(StrEnum):
    """Kinds of requests."""

    HELLO = "hello"
    CALL = "call"
    """Body: a Call. A task that it spawns ends with the session."""
    CALL_DETACHED = "call_detached"
    """Body: a Call. A task that it spawns outlives the session."""
    PING = "ping"
    BYE = "bye"
    """Ends the session; answered when its tasks are gone."""
    BOOT = "boot"
    """Result: BootFacts. Needs no session."""
    RECENT = "recent"
    """Result: the last events, oldest first."""
    FAULTS = "faults"
    """Body: one of `injection_requests`; answered by the harness, however the kernel is."""
    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    """Body: the id of the subscription."""


class Say(StrEnum):
    """Kinds of answers."""

    DONE = "done"
    FAILED = "failed"
    RAISED = "raised"
    EVENTS = "events"


class Envelope(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The first frame of everything."""

    version: Annotated[int, Meta(ge=1, le=CONSOLE_VERSION)]
    id: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    kind: Annotated[str, Meta(max_length=32)]
    body: Any = None


class Hello(Struct, frozen=True, forbid_unknown_fields=True):
    """Opens a session, or joins it with one more connection."""

    session: Annotated[str, Meta(max_length=64, pattern=r"^[0-9a-f]{16,64}\Z")]
    client: ShortText
    boot: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    """Which boot is meant; 0: whichever runs. A session is with one boot for ever, so all that it
    asks is meant for that boot and for no later one."""


class BootFacts(Struct, frozen=True):
    """Which partition this is and what it booted."""

    cluster: str
    name: str
    partid: int
    boot: int
    pid: int
    version: str
    image: str
    domain: str
    lease_s: float
    """A session that is silent for so many seconds loses its tasks."""
    traffic: dict[str, int]
    """Messages of the interconnect, and malformed or dropped ones of the console."""
    limits: dict[str, int]
    """What the system lets it have: open files, and with them connections and sessions of clients.
    """


class EventBatch(Struct, frozen=True):
    """Some of the event stream; `dropped` counts the events lost before these, because the
    subscriber was slow."""

    events: list[dict[str, Any]]
    dropped: int = 0


def pack_envelope(ident: int, kind: str, body: object) -> bytes:
    """The first frame of a message."""
    return codec.encode([CONSOLE_VERSION, ident, kind, body])


def unpack_envelope(frame: Buffer) -> Envelope:
    """The envelope of a first frame. Raises BadMessage."""
    return codec.convert(codec.decode(memoryview(frame)), Envelope)


def answer_frames(ident: int, outcome: Outcome) -> list[Buffer]:
    """The answer that carries `outcome`."""
    match outcome:
        case Done(value, bulk):
            head = pack_envelope(ident, Say.DONE, value)
            return [head, bulk] if len(bulk) else [head]
        case Raised(info):
            return [pack_envelope(ident, Say.RAISED, info)]
        case Failed():
            return [pack_envelope(ident, Say.FAILED, outcome)]


def read_outcome(envelope: Envelope, bulk: Buffer) -> Outcome:
    """The outcome that an answer carries. Raises BadMessage."""
    match envelope.kind:
        case Say.DONE:
            value: Value = envelope.body
            return Done(value, bulk)
        case Say.RAISED:
            return Raised(codec.convert(envelope.body, SignalInfo))
        case Say.FAILED:
            return codec.convert(envelope.body, Failed)
    raise codec.BadMessage(f"{envelope.kind!r} is no answer to a call")
