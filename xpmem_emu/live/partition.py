"""One partition as one OS process: `python -m xpmem_emu.live.partition --config FILE`.

Puts the parts together - life lock, arena, kernel, driver, XPC endpoint, console, event stream -
and runs them on one event loop until the kernel stops. SIGTERM asks the kernel to shut down in
order: exit 0, nothing left behind. A panic is logged and exits 70; the arena then stays for the
peers that still map it, until the next boot removes it.
"""

import argparse
import gc
import mmap
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
import uvloop
import zmq

from xpmem_emu import __version__, codec
from xpmem_emu.client.loop import FOR_CLIENTS, IO_THREADS, new_socket
from xpmem_emu.client.wire import FRAME_MAX, BootFacts
from xpmem_emu.cluster.keys import KeyFolder
from xpmem_emu.cluster.liveness import LifeLock, LifeRecord, LifeWatch
from xpmem_emu.cluster.paths import is_tcp, make_own_folder
from xpmem_emu.cluster.topology import load_image
from xpmem_emu.errors import KernelError
from xpmem_emu.image import Image
from xpmem_emu.inject.events import StoodStill
from xpmem_emu.kernel.calls import Shutdown
from xpmem_emu.kernel.interface import Halt, LinkDown, Panic, Send
from xpmem_emu.live import log
from xpmem_emu.live.arena import Arena, ArenaMemory
from xpmem_emu.live.config import PartitionConfig, require_guarded
from xpmem_emu.live.console.connections import Connections, Refusals
from xpmem_emu.live.console.curve_auth import CurveAuth, Side
from xpmem_emu.live.console.server import Console
from xpmem_emu.live.console.stream import StreamServer
from xpmem_emu.live.driver import Driver, SteppedKernel
from xpmem_emu.live.endpoint import XpcEndpoint, bind
from xpmem_emu.live.health import HealthServer
from xpmem_emu.live.injections import LiveInjections
from xpmem_emu.live.pulse import Pulse
from xpmem_emu.live.room import make_room
from xpmem_emu.live.zygote import fork_each
from xpmem_emu.trace import Record
from xpmem_emu.xpc.peers import Peers

EXIT_PANIC = 70
EXIT_REFUSED = 1
_EVENTS_REMEMBERED = 4096
_EVENTS_QUEUED = 16384
_CONSOLE_QUEUE = 512
_LAST_WORDS_S = 0.1


class KernelFactory(Protocol):
    """Boots a kernel."""

    def __call__(
        self,
        *,
        partid: int,
        boot: int,
        image: Image,
        arena: memoryview,
        swap: memoryview,
        peers: Peers,
        peer_memory: ArenaMemory,
    ) -> SteppedKernel:
        """A kernel that has booted but not stepped; arguments as of kernel.boot.boot_kernel."""


class Harness:
    """Everything around one kernel. It is the driver's Outside."""

    def __init__(
        self, config: PartitionConfig, boot_kernel: KernelFactory, stack: ExitStack
    ) -> None:
        """Boots; `stack` undoes it. Raises KernelError when something is refused."""
        self._config = config
        self._end: Panic | Halt | None = None
        self._room = make_room(len(config.peers))
        self._refusals = Refusals()
        image = load_image(config.image, domain=config.domain, memory=config.memory)
        folder = Path(config.arena_folder)
        make_own_folder(folder)
        life = LifeLock(folder, config.partid)
        stack.callback(life.release)
        self._boot, self._image = life.boot, image
        self._arena = Arena(folder, config.partid, life.boot, image.memory.size)
        stack.callback(self._arena.remove)
        self._loop = uvloop.new_event_loop()
        stack.callback(self._loop.close)
        self._watch = LifeWatch(self._loop, folder, self._process_gone)
        stack.callback(self._watch.close)
        self._peer_memory = ArenaMemory(folder, config.partid, life.boot, self._watch.met)
        stack.callback(self._peer_memory.close)
        kernel = boot_kernel(
            partid=config.partid,
            boot=life.boot,
            image=image,
            arena=self._arena.view,
            swap=memoryview(mmap.mmap(-1, image.memory.swap or mmap.PAGESIZE)),
            peers=Peers(config.standing, config.peers.keys() | {config.partid}, config.crowd),
            peer_memory=self._peer_memory,
        )
        stack.callback(kernel.discard)
        self._driver = Driver(self._loop, kernel, self)
        stack.callback(self._driver.close)
        self._stream = StreamServer(_EVENTS_REMEMBERED, _EVENTS_QUEUED, _event_log(config, stack))
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(IO_THREADS)
        stack.callback(context.term)
        self._door = self._open_door(context)
        if self._door is not None:
            stack.callback(self._door.close)
        for endpoint in (config.listen, self._console_listen()):
            stack.callback(_remove_socket, endpoint)
        self._endpoint = self._open_endpoint(context)
        stack.callback(self._endpoint.close)
        self._pulse = Pulse(image.xpc, config.crowd, self._endpoint.send)
        stack.callback(self._pulse.close)
        self._faults = LiveInjections(
            self._loop, config.partid, self._driver, self._endpoint.send, self.publish
        )
        self._console = self._open_console(context)
        stack.callback(self._console.close)
        if config.health:
            stack.callback(HealthServer(self._loop, Path(config.health), self._driver).close)

    def serve(self) -> int:
        """Run until the kernel stops. Result: the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._shut_down, number.name)
        log.info("boot", boot=self._boot, version=__version__, console=self._config.console)
        self._driver.start()
        gc.freeze()
        self._loop.run_forever()
        return EXIT_PANIC if isinstance(self._end, Panic) else 0

    # -- effects of the kernel -------------------------------------------------------------

    def send(self, now_ns: int, message: Send) -> None:
        if self._faults.interconnect.idle:
            self._pulse.said(now_ns, message)
        self._faults.route(now_ns, message)

    def step_begins(self, now_ns: int) -> None:
        if self._faults.interconnect.idle:
            self._pulse.begin(now_ns)

    def step_ended(self) -> None:
        self._pulse.end()

    def link_down(self, link: LinkDown) -> None:
        log.info("link down", peer=link.partid, reason=link.reason)
        self._endpoint.drop_link(link.partid)
        self._watch.link_down(link.partid)

    def publish(self, records: Sequence[Record]) -> None:
        if self._stream.publish(records):
            self._console.flush_soon()

    def late(self, kernel_ns: int, late_ns: int) -> None:
        still = StoodStill(late_ns=late_ns)
        self.publish([Record(0, kernel_ns, self._config.partid, "fabric", still)])

    def stopped(self, end: Panic | Halt) -> None:
        if isinstance(end, Panic):
            log.error("panic", reason=end.reason, place=end.place)
        else:
            log.info("halt", reason=end.reason)
        self._end = end
        # A connection that closes takes answers with it that its client has not read yet.
        self._loop.call_later(_LAST_WORDS_S, self._loop.stop)

    # -- parts -----------------------------------------------------------------------------

    def _process_gone(self, partid: int, life: LifeRecord) -> None:
        log.info("process gone", peer=partid, boot=life.boot, pid=life.pid, started=life.started)
        self._peer_memory.gone(partid, life.boot)
        self._driver.gone(partid, life.boot, life.pid)

    def _shut_down(self, reason: str) -> None:
        self._driver.call(Shutdown(reason=reason), b"", lambda _outcome: None)

    def _open_door(self, context: zmq.Context[zmq.Socket[bytes]]) -> CurveAuth | None:
        for endpoint in require_guarded(self._config):
            log.warning(
                "INSECURE: whoever reaches this endpoint can do everything with this partition",
                endpoint=endpoint,
            )
        if not self._config.keys:
            return None
        folder = KeyFolder(Path(self._config.keys))
        return CurveAuth(
            self._loop, context, folder, self._config.partid, self._refusals, self._keys_changed
        )

    def _keys_changed(self) -> None:
        self._endpoint.keys_changed()
        self._console.keys_changed()

    def _open_endpoint(self, context: zmq.Context[zmq.Socket[bytes]]) -> XpcEndpoint:
        xpc = self._image.xpc
        return XpcEndpoint(
            context,
            self._loop,
            self._config.listen,
            self._config.peers,
            # A full window of requests and of answers on each of two channels.
            queue=4 * xpc.slots,
            message_max=xpc.payload + codec.MAX_BYTES,
            deliver=self._driver.receive,
            door=self._door,
            connections_max=self._room.peers,
            refusals=self._refusals,
            forged=self._driver.forged,
        )

    def _open_console(self, context: zmq.Context[zmq.Socket[bytes]]) -> Console:
        socket = new_socket(
            context, zmq.ROUTER, queue=_CONSOLE_QUEUE, message_max=FRAME_MAX, threads=FOR_CLIENTS
        )
        door = self._door if is_tcp(self._console_listen()) else None
        if door is not None:
            door.guard(socket, Side.CLIENTS)
        connections = Connections(
            self._loop,
            context,
            socket,
            Side.CLIENTS,
            door is not None,
            self._room.clients,
            self._refusals,
        )
        bind(socket, self._console_listen(), connections)
        return Console(
            self._loop,
            socket,
            self._driver,
            self._stream,
            self._facts,
            self._config.lease_s,
            self._faults.serve,
            door,
            connections,
            self._room.sessions,
        )

    def _console_listen(self) -> str:
        return self._config.console_listen or self._config.console

    def _facts(self) -> BootFacts:
        config, counters = self._config, self._console.counters
        traffic = self._endpoint.traffic
        return BootFacts(
            cluster=config.cluster,
            name=config.name,
            partid=config.partid,
            boot=self._boot,
            pid=os.getpid(),
            version=__version__,
            image=self._image.name,
            domain=self._image.domain,
            lease_s=config.lease_s,
            traffic={
                "sent": traffic.sent,
                "received": traffic.received,
                "dropped": traffic.dropped,
                "console_malformed": counters.malformed,
                "console_unsent": counters.unsent,
                "console_turned_away": counters.turned_away,
                "refused": self._refusals.count,
                "heartbeats_repeated": self._pulse.repeated,
            },
            limits={
                "descriptors": self._room.descriptors,
                "connections": self._room.clients,
                "sessions": self._room.sessions,
            },
        )


def _remove_socket(endpoint: str) -> None:
    """ZeroMQ leaves the file of a unix socket behind."""
    if endpoint.startswith("ipc://"):
        Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)


def _event_log(config: PartitionConfig, stack: ExitStack) -> BinaryIO | None:
    if not config.event_log:
        return None
    log = Path(config.event_log).open("a+b", buffering=0)  # noqa: SIM115
    stack.callback(log.close)
    size = log.seek(0, os.SEEK_END)
    if size:
        log.seek(size - 1)
        if log.read(1) != b"\n":  # a boot was killed as it wrote; ours begins a line of its own
            log.write(b"\n")
    return log


def run_partition(config: PartitionConfig, boot_kernel: KernelFactory) -> int:
    """Be that partition until it stops. Result: the exit code."""
    log.begin({"partition": config.name, "pid": os.getpid()}, config.log_level)
    try:
        with ExitStack() as stack:
            return Harness(config, boot_kernel, stack).serve()
    except KernelError as refusal:
        log.error("refused", why=str(refusal), remedy=refusal.remedy)
        return EXIT_REFUSED


def main(boot_kernel: KernelFactory, arguments: Sequence[str]) -> int:
    """The command line of a partition process. Result: the exit code."""
    parser = argparse.ArgumentParser(description="Run one partition.")
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        required=True,
        help="a PartitionConfig as JSON; several: a process for each (see live.zygote)",
    )
    configs = parser.parse_args(arguments).config
    config = configs[0] if len(configs) == 1 else fork_each(configs)
    if config is None:
        return 0
    return run_partition(
        msgspec.json.decode(config.read_bytes(), type=PartitionConfig), boot_kernel
    )


if __name__ == "__main__":
    from xpmem_emu.kernel.boot import boot_kernel

    sys.exit(main(boot_kernel, sys.argv[1:]))
