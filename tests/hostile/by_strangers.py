"""Attacks of who has no key, or another one than it takes."""

import os
import socket as sockets
import struct
from contextlib import suppress

import zmq

from tests.hostile.ground import Ground
from xpmem_emu.cluster.keys import Credentials, Pair
from xpmem_emu.cluster.state import read_state

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
NULL_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)


def _send(one: sockets.socket, data: bytes) -> None:
    with suppress(OSError):
        one.send(data)


def silent(ground: Ground, count: int) -> None:
    """Connects to the console and says nothing."""
    held = [ground.stranger() for _ in ground.times(count)]
    ground.count_cut(held)


def silent_at_peers(ground: Ground, count: int) -> None:
    """The same where partitions listen for each other."""
    held = [ground.stranger(of_peers=True) for _ in ground.times(count)]
    ground.count_cut(held)


def slow_greeting(ground: Ground, count: int) -> None:
    """Many connections, each of which says a byte of its greeting in turn, and never the last."""
    held = [ground.stranger() for _ in ground.times(min(count, 200))]
    for at in ground.times(len(GREETING) - 1):
        for one in held:
            _send(one, GREETING[at : at + 1])
    ground.count_cut(held)


def garbage(ground: Ground, count: int) -> None:
    """Random bytes, of both doors."""
    held = []
    for number in ground.times(count):
        held.append(ground.stranger(of_peers=bool(number % 2)))
        _send(held[-1], ground.dice.randbytes(ground.dice.randrange(1, 4096)))
        if len(held) == 100:
            ground.count_cut(held)
            for one in held:
                one.close()
            held = []
    ground.count_cut(held)


def huge_frames(ground: Ground, count: int) -> None:
    """A greeting, then a frame that says it has 2^63 bytes, or a command of a gigabyte."""
    held = []
    for number in ground.times(count):
        held.append(ground.stranger())
        flags = b"\x06" if number % 2 else b"\x02"
        greeting = GREETING if number % 3 else NULL_GREETING
        _send(held[-1], greeting + flags + ((1 << 63) - 1).to_bytes(8) + bytes(1000))
    ground.count_cut(held)


def resets(ground: Ground, count: int) -> None:
    """Connects, and resets the connection at once."""
    for number in ground.times(count):
        one = ground.stranger(of_peers=bool(number % 2))
        _send(one, GREETING[:20])
        with suppress(OSError):
            one.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()


def _knock(ground: Ground, shown: Credentials | None, endpoint: str) -> None:
    ground.counts.tried += 1
    wire = ground.socket(endpoint, shown)
    with suppress(zmq.Again):
        wire.send(os.urandom(40), zmq.NOBLOCK)
    wire.close(0)


def unknown_keys(ground: Ground, count: int) -> None:
    """Handshakes with keys that nobody lets in, and with none."""
    state = read_state(ground.cluster).partition("p0")
    good = ground.credentials("attacker")
    for number in ground.times(count):
        shown = Credentials(Pair(*zmq.curve_keypair()), good.server) if number % 2 else None
        _knock(ground, shown, state.console if number % 4 < 2 else state.endpoint)


def wrong_doors(ground: Ground, count: int) -> None:
    """A client's key where partitions listen, a partition's key at the console, and handshakes
    that think the server is another."""
    state = read_state(ground.cluster).partition("p0")
    for number in ground.times(count):
        own, server, endpoint = (
            ("attacker", "p0", state.endpoint),
            ("p2", "p0", state.console),
            ("attacker", "p1", state.console),
        )[number % 3]
        _knock(ground, ground.credentials(own, server), endpoint)
