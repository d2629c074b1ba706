"""A client that asks as fast as it can: `flood.py CLUSTER COUNT CONNECTIONS`.

It has a key that is let in and keeps many more requests in flight than it may. Each line on stdin
makes it ask COUNT times; then it tells how many answers it got. Over tcp a flood comes from
elsewhere: on this machine it leaves the processors to the others.
"""

import errno
import itertools
import os
import sys

import zmq

from xpmem_emu.client.dial import Dial, credentials, new_hello, whereabouts
from xpmem_emu.client.wire import Ask, Say, pack_envelope, unpack_envelope
from xpmem_emu.kernel import calls

IN_FLIGHT = 400
SILENCE_MS = 3000


def sockets(cluster: str, count: int) -> list[zmq.Socket[bytes]]:
    """Connections of one session each."""
    name, endpoint, keys = whereabouts("p0", cluster)
    made = []
    for _ in range(count):
        dial = Dial(endpoint, credentials(name, endpoint, keys))
        assert dial.connected(10)
        dial.socket.send(pack_envelope(0, Ask.HELLO, new_hello()))
        dial.socket.recv_multipart()
        made.append(dial.socket)
    return made


def flood(connections: list[zmq.Socket[bytes]], count: int) -> int:
    """Ask `count` times. Result: how many answers came or were lost; only EAGAIN turns away."""
    frame = pack_envelope(7, Ask.CALL, calls.Look(kind="tasks"))
    asked = answered = 0
    poller = zmq.Poller()
    for socket in connections:
        poller.register(socket, zmq.POLLIN)
    turn = itertools.cycle(connections)
    while answered < count:
        while asked < count and asked - answered < IN_FLIGHT:
            next(turn).send(frame)
            asked += 1
        ready = poller.poll(SILENCE_MS)
        if not ready:
            # We were too slow for our own answers, and the partition keeps only so many.
            answered = asked
        for socket, _ in ready:
            while socket.poll(0):
                envelope = unpack_envelope(socket.recv_multipart()[0])
                answered += 1
                if envelope.kind == Say.FAILED:
                    assert envelope.body["errno"] == errno.EAGAIN, envelope.body
    return answered


if __name__ == "__main__":
    os.nice(19)
    open_connections = sockets(sys.argv[1], int(sys.argv[3]))
    print("ready", flush=True)
    for _ in sys.stdin:
        print("begin", flush=True)
        print(flood(open_connections, int(sys.argv[2])), flush=True)
