"""The border of the kernel: `Kernel.step(now_ns, event) -> Effects`.

Everything that happens to a partition is an event here, everything it does is an effect. The
live harness and the simulator are two readers of this page; no third way in exists.
"""

import msgspec

from xpmem_emu.codec import Buffer
from xpmem_emu.errors import SignalInfo
from xpmem_emu.kernel.calls import Call, Value
from xpmem_emu.trace import Record

# -- events -----------------------------------------------------------------------------------


class Receive(msgspec.Struct, frozen=True):
    """A message arrived on the XPC endpoint: header frame, then bulk frames. Untrusted."""

    frames: list[Buffer]


class Request(msgspec.Struct, frozen=True):
    """Somebody outside calls an operation. Answered by exactly one Reply with this `call_id`."""

    call_id: int
    call: Call
    bulk: Buffer = b""


class Tick(msgspec.Struct, frozen=True):
    """Time has passed; `now_ns` of the step says how much."""


class ProcessGone(msgspec.Struct, frozen=True):
    """Proof from outside that the process of that boot of that partition no longer runs. Says
    nothing about other boots: a process may be stopped, and another one booted over it."""

    partid: int
    boot: int
    pid: int = 0
    """As its host knew it, for people; 0: not known."""


class Forged(msgspec.Struct, frozen=True):
    """Partition `partid`, known by its key, sent a message in the name of another, which was
    dropped. It cannot be trusted with a session."""

    partid: int
    claimed: int


KernelEvent = Receive | Request | Tick | ProcessGone | Forged

# -- effects ----------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """Put these frames on the interconnect towards `partid`. `kind` is the message's wire name,
    `number` its number: what fault rules match."""

    partid: int
    kind: str
    number: int
    frames: list[Buffer]


class LinkDown(msgspec.Struct, frozen=True):
    """Drop everything still queued towards `partid` and close that connection."""

    partid: int
    reason: str


class Done(msgspec.Struct, frozen=True):
    """The call succeeded."""

    value: Value = None
    bulk: Buffer = b""


class Failed(msgspec.Struct, frozen=True):
    """The call was refused: Linux errno, cause, remedy."""

    errno: int
    cause: str
    remedy: str = ""


class Raised(msgspec.Struct, frozen=True):
    """The call's task got a signal."""

    info: SignalInfo


Outcome = Done | Failed | Raised


class Reply(msgspec.Struct, frozen=True):
    """The answer to a Request."""

    call_id: int
    outcome: Outcome


class Panic(msgspec.Struct, frozen=True):
    """The kernel found itself broken and stopped. No later step does anything."""

    reason: str
    place: str


class Halt(msgspec.Struct, frozen=True):
    """The kernel shut down in order. No later step does anything."""

    reason: str


class Effects(msgspec.Struct):
    """What one step did, in order within each list."""

    sends: list[Send | LinkDown] = []
    replies: list[Reply] = []
    trace: list[Record] = []
    stopped: Panic | Halt | None = None
    wake_at_ns: int | None = None
    """When to step next with a Tick at the latest; None: nothing is pending."""
