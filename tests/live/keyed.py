"""Clusters over tcp, guarded by keys or by nothing."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq

from xpmem_emu.backend import processes
from xpmem_emu.cluster.keys import Capability, Client, KeyFolder, Peer
from xpmem_emu.cluster.state import ClusterState
from xpmem_emu.cluster.topology import ClusterSpec, PartitionSpec
from xpmem_emu.polling import wait_until

from .conftest import IMAGE, LEASE_S

MEBIBYTE = 1 << 20
OPERATOR = Client(0, [], Capability.OPERATE)


@dataclass(frozen=True)
class Keyed:
    """What a test has of its cluster."""

    folder: KeyFolder
    state: ClusterState

    def log(self, name: str = "p0") -> list[dict[str, object]]:
        """What a partition logged, without lines that are still being written."""
        lines = Path(self.state.partition(name).log).read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def refusals(self, name: str = "p0") -> list[str]:
        """Why somebody was not let in, as the log says."""
        return [str(line["why"]) for line in self.log(name) if line["event"] == "refused"]

    def await_refusal(self, why: str, since: int = 0) -> None:
        """Wait until the log of p0 says so, after its first `since` refusals."""
        eventually(lambda: any(why in one for one in self.refusals()[since:]))


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Look again and again until it is so."""
    assert wait_until(condition, seconds), f"not within {seconds} s"


def free_ports(count: int) -> list[int]:
    """Ports of this host that nobody listens at."""
    with zmq.Context() as context:
        probes = [context.socket(zmq.ROUTER) for _ in range(count)]
        ports = [probe.bind_to_random_port("tcp://127.0.0.1") for probe in probes]
        for probe in probes:
            probe.close()
        return ports


def many_partitions(keys: Path | None, count: int) -> ClusterState:
    """p0, p1, ... with everything tcp."""
    ports = free_ports(2 * count)
    return _up(
        keys,
        tuple(
            PartitionSpec(
                f"p{number}",
                number,
                endpoint=f"tcp://127.0.0.1:{ports[number]}",
                console=f"tcp://127.0.0.1:{ports[count + number]}",
            )
            for number in range(count)
        ),
    )


def two_partitions(keys: Path | None, reached: int = 0, listening: int = 0) -> ClusterState:
    """p0 and p1 with everything tcp. `reached`: where p1 reaches p0 if not where it listens."""
    own, second, *consoles = free_ports(4)
    specs = tuple(
        PartitionSpec(
            f"p{number}",
            number,
            endpoint=f"tcp://127.0.0.1:{port}",
            console=f"tcp://127.0.0.1:{consoles[number]}",
        )
        for number, port in enumerate((reached or own, second))
    )
    if listening:
        first = specs[0]
        specs = (
            PartitionSpec(
                first.name,
                0,
                endpoint=first.endpoint,
                console=first.console,
                listen=f"tcp://127.0.0.1:{listening}",
            ),
            specs[1],
        )
    return _up(keys, specs)


def _up(keys: Path | None, specs: tuple[PartitionSpec, ...]) -> ClusterState:
    spec = ClusterSpec(
        "keyed",
        specs,
        IMAGE,
        16 * MEBIBYTE,
        lease_s=LEASE_S,
        keys=str(keys or ""),
        insecure=keys is None,
    )
    return processes.up(spec)


def make_keys(path: Path, partitions: int = 2) -> KeyFolder:
    """A folder with the keys of p0, p1, ... and an operator."""
    folder = KeyFolder(path)
    folder.make(
        {f"p{number}": Peer(number) for number in range(partitions)} | {"operator": OPERATOR}
    )
    return folder
