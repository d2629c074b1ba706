"""Sends what a malicious partition makes up, as if its kernel had sent it.

It has the right key and so a session of its own: headers are those of its real messages, which are
listened to. What it claims of itself may be anything, what it claims of others is stopped by the
transport before any kernel sees it.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from xpmem_emu.codec import BadMessage, convert
from xpmem_emu.kernel.interface import Send
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.draw.forging import _REFERENCE
from xpmem_emu.sim.operations.registry import Registry
from xpmem_emu.sim.plan import Forgery
from xpmem_emu.xpc.frame import (
    FIRST_ADMIN_CODE,
    FIRST_DATA_CODE,
    REPLY_CODES,
    ChannelNumber,
    Header,
    decode_frame,
    encode_frame,
)
from xpmem_emu.xpc.messages import MESSAGE_NAMES, Ack, Message, Pending

_BOOT_SHIFT = 16
_HEARD = 32
_ANY = (Ack.code, Pending.code)
"""What may answer whatever was asked."""
_TOP = (1 << 63) - 1


class Forger:
    """The malicious partitions of one run."""

    def __init__(
        self,
        cluster: SimCluster,
        cast: Registry,
        forgeries: Sequence[Forgery],
        told: Callable[[Forgery], None],
    ) -> None:
        """`told` of each message that was sent."""
        self._cluster = cluster
        self._cast = cast
        self._told = told
        self._evil = {forgery.src for forgery in forgeries}
        self._last: dict[tuple[int, int], Header] = {}
        self._claimed: dict[int, int] = defaultdict(int)
        self._newest: dict[tuple[int, int, int], int] = defaultdict(int)
        self._asked: dict[tuple[int, int], deque[tuple[Header, int]]] = defaultdict(
            lambda: deque(maxlen=_HEARD)
        )
        for forgery in forgeries:
            cluster.at(forgery.at_ns, partial(self._forge, forgery))

    def note(self, src: int, message: Send) -> None:
        """Listen to a real message."""
        if src not in self._evil and message.partid not in self._evil:
            return
        header, body, _ = decode_frame(message.frames)
        if src in self._evil:
            self._last[src, message.partid] = header
            self._count(src, message.partid, header)
        elif body.reply_code:
            self._asked[message.partid, src].append((header, body.reply_code))

    def claimed(self, partid: int) -> int:
        """The highest boot that it claimed to be."""
        return self._claimed[partid]

    def end(self) -> None:
        """The malicious ones are repaired: nothing is made up any more."""
        self._evil.clear()

    def _count(self, src: int, dst: int, header: Header) -> None:
        key = src, dst, header.channel
        self._newest[key] = max(self._newest[key], header.number)

    def _forge(self, forgery: Forgery) -> None:
        last = self._last.get((forgery.src, forgery.dst))
        running = {forgery.src, forgery.dst} <= self._cluster.kernels.keys()
        if last is None or not running or forgery.src not in self._evil:
            return
        kind = MESSAGE_NAMES[forgery.kind]
        for copy in range(forgery.times):
            body = [
                self._real(forgery.src, field, value, copy)
                for field, value in zip(kind.__struct_fields__, forgery.body, strict=True)
            ]
            header = self._header(forgery, kind, last, copy)
            if header is None or None in body:
                return
            try:
                message = convert(body, kind)
            except BadMessage:
                return  # counted past what its type allows
            self._cluster.arrive(forgery.dst, [encode_frame(header, message)])
        self._told(forgery)

    def _real(self, src: int, field: str, value: Any, copy: int) -> Any:
        """What a reference stands for, None when it does not exist; of a flood, the next one."""
        if field == "attachment":
            return min(_TOP, value + copy)
        if field == "boot":
            self._claimed[src] = max(self._claimed[src], self._cluster.boot_of(src) + value)
            return self._cluster.boot_of(src) + value
        if isinstance(value, list):
            parts = [self._real(src, "", part, copy) for part in value]
            return None if None in parts else parts
        if isinstance(value, str) and (found := _REFERENCE.fullmatch(value)):
            number = int(found[2])
            if found[1] == "segment":
                segment = self._cast.segments.get(number)
                return None if segment is None else segment.segid
            permit = self._cast.permits.get(number)
            return None if permit is None else permit.apid + copy
        return value

    def _header(
        self, forgery: Forgery, kind: type[Message], last: Header, copy: int
    ) -> Header | None:
        src, dst = forgery.src, forgery.dst
        channel = ChannelNumber.ADMIN if kind.code < FIRST_DATA_CODE else ChannelNumber.MEM
        number = 0
        if kind.code in REPLY_CODES:
            asked = [each for each, code in self._asked[src, dst] if kind.code in (code, *_ANY)]
            if not asked:
                return None
            answered = asked[-1 - forgery.number % len(asked)]
            channel, number = ChannelNumber(answered.channel), answered.number
        elif kind.code >= FIRST_ADMIN_CODE:
            number = min(_TOP, self._newest[src, dst, channel] + 1 + forgery.number)
        claimed = last.src_incarnation + forgery.newer >> _BOOT_SHIFT
        self._claimed[src] = max(self._claimed[src], claimed)
        header = replace(
            last,
            src_incarnation=min(_TOP, last.src_incarnation + forgery.newer),
            channel=channel,
            number=number,
        )
        if not forgery.newer and not forgery.number:
            self._count(src, dst, header)
        return header
