"""Everything that exists only while a partition is ACTIVE, or winding up after having been.

A session is one pair of incarnations, ours and the peer's; it holds the ADMIN channel and the
others. It ends once, and then nothing of it reaches the wire or the memory of anybody again.
"""

from xpmem_emu.errors import KernelBug
from xpmem_emu.xpc.admin import Admin
from xpmem_emu.xpc.channel import Channel, ChannelControl, ChannelState
from xpmem_emu.xpc.delivery import Host
from xpmem_emu.xpc.frame import DATA_CHANNELS
from xpmem_emu.xpc.messages import Message
from xpmem_emu.xpc.reasons import Reason
from xpmem_emu.xpc.wire import Local, PeerCounters, Wire

_IDLE = (ChannelState.DISCONNECTED, ChannelState.OFFERED, ChannelState.ASKED)


class Session:
    """The channels to one peer under one pair of incarnations."""

    def __init__(
        self, local: Local, peer: int, counters: PeerCounters, host: Host, *, mine: int, remote: int
    ) -> None:
        self.remote = remote
        self._host = host
        self.wire = Wire(local, peer, counters, mine=mine, remote=remote)
        self.admin = Admin(self.wire, self._control, host.deactivate)
        self.channels = [Channel(number, self.wire, host, self.admin) for number in DATA_CHANNELS]

    @property
    def engaged(self) -> bool:
        """The engaged mark (sources 3.3): the peer's requests may still be worked on here."""
        return any(channel.state not in _IDLE for channel in self.channels)

    def offer(self) -> None:
        """Offer every channel that somebody has registered for."""
        for channel in self.channels:
            channel.offer()

    def end(self, reason: Reason, place: str) -> None:
        """Wake every caller with `reason`, forget all answers, say nothing more."""
        self.admin.end(reason, place)
        for channel in self.channels:
            channel.deactivate(reason, place)

    def retire(self) -> None:
        """Do not wait for what still runs."""
        for channel in self.channels:
            channel.retire()

    def audit(self) -> dict[str, int]:
        """What the session holds; zero everywhere after it ended."""
        openings = [channel.opening for channel in self.channels if channel.opening is not None]
        return {
            "slots": sum(opening.sender.in_use for opening in openings),
            "waiting": sum(opening.sender.waiting for opening in openings),
            "remembered": sum(opening.receiver.remembered for opening in openings)
            + self.admin.remembered,
            "admin": self.admin.in_use,
        }

    def _control(self, message: Message) -> None:
        if not isinstance(message, ChannelControl):
            raise KernelBug(f"{message} on the ADMIN channel")
        if message.channel in DATA_CHANNELS:
            self.channels[message.channel].control(message)
        else:
            self._host.deactivate(Reason.BAD_CHANNEL_NUMBER, "xpc/session:control")
