"""What a partition process is started with, and whether it may be: inert data, read by who starts
it and by itself."""

import errno
from pathlib import Path

import msgspec

from xpmem_emu.cluster.keys import KeyFolder
from xpmem_emu.cluster.paths import is_tcp
from xpmem_emu.errors import KernelError
from xpmem_emu.live.log import Level


class PartitionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a partition process is started with. Folders are absolute paths."""

    cluster: str
    name: str
    partid: int
    image: str
    listen: str
    console: str
    peers: dict[int, str]
    """Where the other partitions listen, by partid."""
    arena_folder: str
    standing: list[int] = []
    """With which of them it has a session from boot on (`xpc.peers`)."""
    crowd: int = 0
    """Most of those that any partition has."""
    console_listen: str = ""
    """Where it listens for clients when that is not `console` itself."""
    domain: str = ""
    memory: int | None = None
    event_log: str = ""
    """A file that gets every event as a line of JSON; empty: none."""
    lease_s: float = 5.0
    log_level: Level = "info"
    keys: str = ""
    """The folder of the keys that guard what is tcp."""
    insecure: bool = False
    """Whether what is tcp may be without keys."""
    health: str = ""
    """A socket for the health probe; empty: none."""

    def open_to_all(self) -> list[str]:
        """Where it listens so that anybody can reach it who reaches this host."""
        places = (self.listen, self.console_listen or self.console)
        return [] if self.keys else [place for place in places if is_tcp(place)]


def require_guarded(config: PartitionConfig) -> list[str]:
    """Raises KernelError: EACCES when it would listen at a tcp endpoint without keys and nobody
    said that it may, or what is wrong with its keys. Result: the endpoints that it then leaves
    open to all."""
    endpoints = config.open_to_all()
    if endpoints and not config.insecure:
        raise KernelError(
            errno.EACCES,
            f"{config.name} would let in whoever reaches {' and '.join(endpoints)}",
            "--keys DIR (`xpmem-emu keys init --topology FILE --keys DIR` makes them), or "
            "--insecure",
        )
    if config.keys:
        KeyFolder(Path(config.keys)).pair_of(config.partid)
    return endpoints
