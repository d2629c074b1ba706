"""The floor under every message: two processes that echo, on the partitions' own loop and sockets.

No kernel, no codec: what a round trip costs before this project adds anything.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import uvloop
import zmq

from xpmem_emu.client.loop import Inbox, new_socket, send_now
from xpmem_emu.codec import Buffer

_QUEUE, _MESSAGE_MAX = 1000, 1 << 20


def serve(here: str, there: str) -> None:
    """Send every message back, until one is empty."""
    loop = uvloop.new_event_loop()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    inbox = new_socket(context, zmq.ROUTER, queue=_QUEUE, message_max=_MESSAGE_MAX)
    inbox.bind(here)
    back = new_socket(context, zmq.DEALER, queue=_QUEUE, message_max=_MESSAGE_MAX)
    back.connect(there)

    def deliver(frames: list[Buffer]) -> None:
        if not frames[1]:
            loop.stop()
        else:
            send_now(back, frames[1:])

    Inbox(loop, inbox, deliver)
    loop.run_forever()


def round_trip_ns(folder: Path, size: int, times: int) -> float:
    """Median nanoseconds of a round trip of `size` bytes, over `times` of them."""
    here, there = f"ipc://{folder}/echo-a", f"ipc://{folder}/echo-b"
    child = os.fork()
    if child == 0:
        serve(there, here)
        os._exit(0)
    loop = uvloop.new_event_loop()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    inbox = new_socket(context, zmq.ROUTER, queue=_QUEUE, message_max=_MESSAGE_MAX)
    inbox.bind(here)
    out = new_socket(context, zmq.DEALER, queue=_QUEUE, message_max=_MESSAGE_MAX)
    out.connect(there)
    payload, took = b"x" * size, []
    begun = time.perf_counter_ns()
    send_now(out, [payload])

    def deliver(frames: list[Buffer]) -> None:
        nonlocal begun
        now = time.perf_counter_ns()
        took.append(now - begun)
        if len(took) == times:
            send_now(out, [b""])
            loop.call_later(0.05, loop.stop)
            return
        begun = time.perf_counter_ns()
        send_now(out, [payload])

    reader = Inbox(loop, inbox, deliver)
    loop.run_forever()
    reader.close()
    out.close()
    context.term()
    os.waitpid(child, 0)
    return statistics.median(took[times // 10 :])


if __name__ == "__main__":
    print(round_trip_ns(Path(sys.argv[1]), 64, 2000))
