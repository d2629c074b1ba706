"""How a client gets through to a console: where that is, a socket that connects once, and why it
did not.

A unix socket is looked at first, so nobody waits for one that is not there. libzmq tells only its
monitor how a handshake went; without that, a closed door would look like a slow partition. A door
tells nobody why it stays closed, so neither can the error here.
"""

import errno
import itertools
import os
import socket as sockets
import sys
from typing import TYPE_CHECKING

import zmq

from xpmem_emu.client.failures import XpmemError, xpmem_error
from xpmem_emu.client.loop import Socket, monitored, new_socket, wait_for
from xpmem_emu.client.wire import MESSAGE_MAX, Hello
from xpmem_emu.cluster.locator import location_of
from xpmem_emu.cluster.paths import (
    CLUSTER_VARIABLE,
    DEFAULT_CLUSTER,
    KEY_VARIABLE,
    KEYS_VARIABLE,
    is_tcp,
)
from xpmem_emu.errors import KernelError
from xpmem_emu.text import visible

if TYPE_CHECKING:
    from xpmem_emu.cluster.keys import Credentials

CALL_TIMEOUT_S = 300.0
"""Longer than any call may take under the slowest shipped image."""
CONNECT_TIMEOUT_S = 5.0
BYE_TIMEOUT_S = 2.0
_QUEUE = 256
_HOPELESS = (
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)
_monitors = itertools.count(1)


def whereabouts(partition: str, cluster: str | None) -> tuple[str, str, str]:
    """Name, console endpoint and folder of keys of what `connect` was asked for. Raises
    XpmemError ENOENT when there is no such cluster or partition."""
    keys = os.environ.get(KEYS_VARIABLE, "")
    if "://" in partition:
        name, at, endpoint = partition.rpartition("@")
        return name if at else endpoint, endpoint, keys
    name = cluster or os.environ.get(CLUSTER_VARIABLE) or DEFAULT_CLUSTER
    try:
        found = location_of(name, partition)
        console, keys = found.console, keys or found.keys
    except KernelError as error:
        raise xpmem_error(error.errno, error.cause, error.remedy) from None
    if not console:
        raise xpmem_error(
            errno.EHOSTUNREACH,
            f"{partition} has no console that can be reached",
            f"xpmem-emu --cluster {name} ps",
        )
    return partition, console, keys


def new_hello(boot: int = 0) -> Hello:
    """A session of this process with that boot of a partition, 0: with whichever runs."""
    program = visible(os.path.basename(sys.argv[0]))[:40] if sys.argv else ""
    name = f"{program or 'python'}[{os.getpid()}]"
    return Hello(session=os.urandom(16).hex(), client=name, boot=boot)


def credentials(partition: str, endpoint: str, folder: str) -> "Credentials | None":
    """What a client shows at the console of `partition`: its key out of `folder`, else out of
    `$XPMEM_EMU_KEYS`; the one that `$XPMEM_EMU_KEY` names when there are several. None: `endpoint`
    needs no key, or there is no folder. Raises XpmemError."""
    folder = folder or os.environ.get(KEYS_VARIABLE, "")
    if not folder or not is_tcp(endpoint):
        return None
    from xpmem_emu.cluster.keys import KeyFolder

    try:
        name = os.environ.get(KEY_VARIABLE, "")
        return KeyFolder(os.path.abspath(folder)).client(name, partition)
    except KernelError as error:
        raise xpmem_error(error.errno, error.cause, error.remedy) from None


class Dial:
    """An attempt to reach the console at `endpoint`. `socket` is a DEALER that drops a lost
    connection instead of making a new one."""

    def __init__(self, endpoint: str, shown: "Credentials | None") -> None:
        """Raises XpmemError when it is plain that nobody can answer."""
        _require_listener(endpoint)
        context: zmq.Context[Socket] = zmq.Context.instance()
        self._endpoint = endpoint
        self._shown = shown
        self.socket = new_socket(context, zmq.DEALER, queue=_QUEUE, message_max=MESSAGE_MAX)
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self._monitor: Socket | None = self._watch(context)
        if shown is not None:
            shown.show(self.socket)
        try:
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.give_up()
            raise xpmem_error(errno.EINVAL, f"{endpoint}: {error.strerror}") from None

    def connected(self, patience_s: float) -> bool:
        """Whether the other end is reached, after `patience_s` at most. Raises XpmemError when
        it never will be."""
        interest = [(self.socket, zmq.POLLOUT)]
        if self._monitor is not None:
            interest.append((self._monitor, zmq.POLLIN))
        ready = wait_for(interest, patience_s)
        if self.socket in ready:
            self._stop_watching()
            return True
        if self._monitor is not None and self._monitor in ready:
            event, _ = monitored(self._monitor.recv_multipart())
            raise self._absent() if event == zmq.EVENT_CLOSED else self.refusal()
        return False

    def give_up(self) -> None:
        """Close the socket."""
        self._stop_watching()
        self.socket.close()

    def unanswered(self) -> XpmemError:
        """The error of who waited long enough."""
        return xpmem_error(errno.ETIMEDOUT, f"nobody answers at {self._endpoint}", "xpmem-emu ps")

    def _watch(self, context: zmq.Context[Socket]) -> Socket:
        address = f"inproc://dial.{next(_monitors)}"
        self.socket.monitor(address, _HOPELESS)
        monitor = context.socket(zmq.PAIR)
        monitor.linger = 0
        monitor.connect(address)
        return monitor

    def _stop_watching(self) -> None:
        if self._monitor is not None:
            if not self.socket.closed:
                self.socket.disable_monitor()
            self._monitor.close()
            self._monitor = None

    def _absent(self) -> XpmemError:
        return xpmem_error(
            errno.ECONNREFUSED, f"nobody listens at {self._endpoint}", "xpmem-emu ps, there"
        )

    def refusal(self) -> XpmemError:
        """The error of whose connection is closed before anything was said. Nobody is told why, so
        it names all that may be the reason."""
        reasons = [
            "as many connections as the partition can have are open",
            "it went away just now",
        ]
        remedy = "close some, or give it more open files (ulimit -n); xpmem-emu ps"
        if is_tcp(self._endpoint) and self._shown is None:
            reasons.insert(0, "we showed no key")
            remedy = f"set {KEYS_VARIABLE} to a folder with a key that it lets in, or {remedy}"
        elif is_tcp(self._endpoint):
            reasons.insert(0, "our key, or the one that we think is its own, is not the right one")
            remedy = f"xpmem-emu keys ls, there and here, or {remedy}"
        return xpmem_error(
            errno.ECONNREFUSED, f"{self._endpoint} closes its door: {', or '.join(reasons)}", remedy
        )


def _require_listener(endpoint: str) -> None:
    """Fail at once, with the system's errno, when nobody listens on this host's socket."""
    if not endpoint.startswith("ipc://"):
        return
    with sockets.socket(sockets.AF_UNIX) as probe:
        try:
            probe.connect(endpoint.removeprefix("ipc://"))
        except OSError as error:
            raise xpmem_error(
                error.errno or errno.EIO,
                f"nobody answers at {endpoint}",
                "xpmem-emu ps, and `xpmem-emu reboot P` for one that is dead",
            ) from None
