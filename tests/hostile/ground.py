"""What an attacker has: a key of a client that may use tasks, one that may only look, the key of a
partition (p2, whose process runs and is nobody's concern), and the addresses of all.

It speaks bytes. Connections are closed at the end of an attack, politely where that is possible, so
that the next one begins with none.
"""

import errno
import os
import socket as sockets
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import zmq

from tests.live.loops import patiently
from xpmem_emu.client.blocking import Partition, connect
from xpmem_emu.client.dial import Dial, credentials, new_hello, whereabouts
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.client.wire import Ask, Envelope, Hello, Say, pack_envelope, unpack_envelope
from xpmem_emu.cluster.keys import Credentials, KeyFolder
from xpmem_emu.cluster.paths import KEY_VARIABLE
from xpmem_emu.cluster.state import read_state
from xpmem_emu.codec import BadMessage
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import Call
from xpmem_emu.xpc.frame import Header, encode_frame
from xpmem_emu.xpc.messages import Message

TARGET, OWN = 0, 2
"""Partids: whom it attacks, and whose key it has."""
USER, LOOKER, OPERATOR = "attacker", "looker", "operator"
PAGE, MEBIBYTE = 4096, 1 << 20
PATIENCE_S = 10.0


@dataclass(slots=True)
class Counts:
    """What became of an attack: messages or connections made, answers, refusals, and connections
    that the other side closed."""

    tried: int = 0
    answered: int = 0
    refused: int = 0
    cut: int = 0


class Speaker:
    """A session with a key, in bytes."""

    def __init__(self, ground: "Ground", key: str, hello: Hello | None = None) -> None:
        """Raises XpmemError when it is not let in."""
        os.environ[KEY_VARIABLE] = key
        name, endpoint, keys = whereabouts("p0", ground.cluster)
        dial = Dial(endpoint, credentials(name, endpoint, keys))
        if not dial.connected(PATIENCE_S):
            raise dial.unanswered()
        self.counts = ground.counts
        self.socket = dial.socket
        self._ident = 0
        answer = self.ask(Ask.HELLO, hello or new_hello())
        if answer is None or answer.kind == Say.FAILED:
            self.socket.close(0)
            raise XpmemError(errno.EUSERS, str(answer and answer.body))

    def send(self, kind: str, body: object = None, bulk: bytes = b"") -> int:
        """Ask, and do not wait. Result: the id of the request."""
        self._ident += 1
        head = pack_envelope(self._ident, kind, body)
        self.raw([head, bulk] if bulk else [head])
        return self._ident

    def raw(self, frames: list[bytes]) -> None:
        """Send whatever that is; what finds no room in time is dropped."""
        self.counts.tried += 1
        if self.socket.poll(1000, zmq.POLLOUT):
            with suppress(zmq.Again):
                self.socket.send_multipart(frames, zmq.NOBLOCK)

    def ask(self, kind: str, body: object = None, bulk: bytes = b"") -> Envelope | None:
        """Ask, and wait for the answer; None: there is none."""
        ident, until_s = self.send(kind, body, bulk), time.monotonic() + PATIENCE_S
        while (left_s := until_s - time.monotonic()) > 0:
            if not self.socket.poll(int(left_s * 1000)):
                break
            envelope = self._take()
            if envelope is not None and envelope.id == ident:
                return envelope
        return None

    def call(self, call: Call, bulk: bytes = b"") -> int:
        """Make a call; its result where that is a number, else 0."""
        answer = self.ask(Ask.CALL, call, bulk)
        if answer is None or answer.kind != Say.DONE:
            return 0
        return answer.body if isinstance(answer.body, int) else 0

    def drain(self, wait_ms: int = 0) -> None:
        """Count the answers that are there; wait so long for each."""
        while self.socket.poll(wait_ms):
            self._take()

    def cut(self) -> bool:
        """Whether the other side closes the connection within a second."""
        until_s = time.monotonic() + 1
        while (there := bool(self.socket.poll(0, zmq.POLLOUT))) and time.monotonic() < until_s:
            self.socket.poll(5)
        return not there

    def close(self) -> None:
        """Say goodbye and leave."""
        if not self.socket.closed:
            with suppress(zmq.ZMQError):
                self.socket.send(pack_envelope(1 << 40, Ask.BYE, None), zmq.NOBLOCK)
            self.socket.close(200)

    def _take(self) -> Envelope | None:
        frames = self.socket.recv_multipart()
        try:
            envelope = unpack_envelope(frames[0])
        except BadMessage:
            return None
        if envelope.kind == Say.DONE:
            self.counts.answered += 1
        elif envelope.kind in (Say.FAILED, Say.RAISED):
            self.counts.refused += 1
        return envelope


@dataclass
class Ground:
    """One attack's view. `until_s`: when it has to come to an end, on the monotonic clock."""

    cluster: str
    keys: Path
    until_s: float
    dice: Random
    stack: ExitStack
    counts: Counts = field(default_factory=Counts)

    def times(self, count: int) -> Iterator[int]:
        """So many rounds, as long as there is time: one at least."""
        for number in range(count):
            if number and time.monotonic() > self.until_s:
                return
            yield number

    def speaker(self, key: str = USER) -> Speaker:
        """A session. Raises XpmemError when there may be no further one."""
        made = Speaker(self, key)
        self.stack.callback(made.close)
        return made

    def speakers(self, count: int, key: str = USER) -> list[Speaker]:
        """As many sessions as there may be, up to a number."""
        made: list[Speaker] = []
        with suppress(XpmemError):
            while len(made) < count:
                made.append(self.speaker(key))
        return made

    def client(self, partition: str, key: str = USER) -> Partition:
        """The library's client."""
        os.environ[KEY_VARIABLE] = key
        return self.stack.enter_context(connect(partition, self.cluster, timeout=PATIENCE_S))

    def task(self, speaker: Speaker, size: int = MEBIBYTE) -> tuple[int, int]:
        """A task with so many bytes mapped: its pid, their address."""
        pid = speaker.call(calls.Spawn())
        speaker.call(calls.XpmemOpen(pid=pid))
        return pid, speaker.call(calls.Mmap(pid=pid, length=size))

    # -- without any key -----------------------------------------------------------------------

    def address(self, of_peers: bool = False) -> tuple[str, int]:
        """Where p0 listens."""
        partition = read_state(self.cluster).partition("p0")
        endpoint = partition.endpoint if of_peers else partition.console
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        return host, int(port)

    def stranger(self, of_peers: bool = False) -> sockets.socket:
        """A plain connection."""
        self.counts.tried += 1
        made = self.stack.enter_context(sockets.socket())
        made.settimeout(1)
        with suppress(OSError):
            made.connect(self.address(of_peers))
        return made

    def count_cut(self, connections: list[sockets.socket]) -> None:
        """Count those that the other side has closed."""
        for one in connections:
            one.setblocking(False)
            try:
                while one.recv(4096):
                    pass
            except BlockingIOError:
                continue
            except OSError:
                pass
            self.counts.cut += 1

    # -- with the key of a partition -----------------------------------------------------------

    def credentials(self, own: str, server: str = "p0") -> Credentials:
        """What one shows who has the private half called `own`."""
        folder = KeyFolder(self.keys)
        key = folder.read().named(server)
        assert key is not None
        return Credentials(folder.pair(own), key.public.encode())

    def socket(self, endpoint: str, shown: Credentials | None) -> zmq.Socket[bytes]:
        """A connection that shows that key, or speaks without one."""
        made: zmq.Socket[bytes]
        made = self.stack.enter_context(zmq.Context.instance().socket(zmq.DEALER))
        made.linger = 200
        made.sndtimeo = 1000
        if shown is not None:
            shown.show(made)
        made.connect(endpoint)
        return made

    def peer(self) -> "Impostor":
        """p2, said by us, beside the process that it has."""
        os.environ[KEY_VARIABLE] = OPERATOR
        # Strangers of an attack before have places until a partition hears that they left.
        self.until_s += patiently(lambda: self._lets_in("p0") and self._lets_in("p2"), "doors open")
        with connect("p0", self.cluster) as p0, connect("p2", self.cluster) as p2:
            # An attack before may have cost p2 its session.
            self.until_s += patiently(lambda: _row(p0, OWN)["state"] == "ACTIVE", "p2 is back")
            mine, theirs = _row(p0, OWN)["incarnation"], _row(p2, TARGET)["incarnation"]
        endpoint = read_state(self.cluster).partition("p0").endpoint
        wire = self.socket(endpoint, self.credentials("p2"))
        return Impostor(wire, int(str(mine)), int(str(theirs)), self.counts)

    def _lets_in(self, name: str) -> bool:
        try:
            with connect(name, self.cluster):
                return True
        except XpmemError as error:
            if error.errno != errno.ECONNREFUSED:
                raise
            return False


@dataclass
class Impostor:
    """Sends frames as p2, by p2's key. `mine` and `theirs`: the incarnations of the session that
    the real p2 has with p0."""

    wire: zmq.Socket[bytes]
    mine: int
    theirs: int
    counts: Counts

    def say(
        self,
        message: Message,
        number: int = 0,
        *,
        src: int = OWN,
        bulk: bytes = b"",
        mine: int | None = None,
        theirs: int | None = None,
    ) -> None:
        """One well-formed frame; incarnations are those of the session unless said otherwise."""
        header = Header(
            src,
            self.mine if mine is None else mine,
            self.theirs if theirs is None else theirs,
            2 if message.code < 32 else 0,
            number if message.code >= 10 else 0,
        )
        frame = encode_frame(header, message)
        self.raw([frame, bulk] if bulk else [frame])

    def raw(self, frames: list[bytes]) -> None:
        """Any frames at all."""
        self.counts.tried += 1
        with suppress(zmq.Again):
            self.wire.send_multipart(frames)


def _row(partition: Partition, peer: int) -> dict[str, object]:
    return next(row for row in partition.look("partitions") if row["peer"] == peer)
