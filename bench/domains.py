"""A bulk read across coherence domains against what the same loop and sockets can move at all."""

import os
import time
from pathlib import Path

from bench.echo import round_trip_ns
from xpmem_emu.backend.processes import down, up
from xpmem_emu.client.blocking import connect
from xpmem_emu.cluster.topology import ClusterSpec, PartitionSpec

MIB = 1 << 20
SIZE = 64 * MIB
PIECE = 8 * MIB
"""Bytes of one load of the client."""
ECHO = MIB // 2
"""Half there and half back: an echo of it moves a MiB."""


def rates(folder: Path) -> tuple[float, float]:
    """MiB/s of the read, and of the echo."""
    name = f"bench-far-{os.getpid()}"
    partitions = tuple(
        PartitionSpec(f"p{number}", number, domain=domain) for number, domain in enumerate("AB")
    )
    up(ClusterSpec(name=name, partitions=partitions, memory=2 * SIZE))
    try:
        with connect("p0", name) as p0, connect("p1", name) as p1:
            exporter, importer = p0.spawn(), p1.spawn()
            base = exporter.mmap(SIZE)
            for offset in range(0, SIZE, PIECE):
                exporter.store(base + offset, bytes(PIECE))
            apid = importer.xpmem_get(exporter.xpmem_make(base, SIZE))
            at = importer.xpmem_attach(apid, 0, SIZE)
            importer.load(at, PIECE)
            begun = time.perf_counter()
            for offset in range(0, SIZE, PIECE):
                importer.load(at + offset, PIECE)
            took = time.perf_counter() - begun
    finally:
        down(name)
    return SIZE / MIB / took, 1e9 / round_trip_ns(folder, ECHO, 200)
