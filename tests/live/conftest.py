"""Clusters of real processes with the fake kernel, in folders of the test's own.

Whatever a test leaves running is ended by pid, and a test that leaves files behind after `down`
is told so by its own assertions on `Home`.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from xpmem_emu.backend import processes
from xpmem_emu.cluster.paths import arena_place
from xpmem_emu.cluster.state import ClusterState
from xpmem_emu.cluster.topology import ClusterSpec, PartitionSpec, numbered_partitions
from xpmem_emu.errors import KernelError

IMAGE = "patient"
"""What clusters of the real kernel boot here, unless a test is about a deadline: a machine with
other work to do must not make a partition give up one that only waits for a processor."""
LEASE_S = 60.0
"""How long clients may be silent, unless a test is about that."""
LOSSY = str(Path(__file__).with_name("lossy.toml"))
"""The same for tests that lose messages."""

FAKE = (sys.executable, str(Path(__file__).parent / "fake_partition.py"))


@dataclass(frozen=True)
class Home:
    """The folders that hold a test's clusters."""

    run: Path
    arenas: Path

    def leftovers(self) -> list[Path]:
        """Everything in them but the roots."""
        return [*self.run.glob("*/*"), *self.arenas.glob("*")]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    run = Path(tempfile.mkdtemp(prefix="xe", dir="/tmp"))
    arenas = Path(tempfile.mkdtemp(prefix="xe", dir=arena_place()))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    monkeypatch.setenv("XPMEM_EMU_ARENAS", str(arenas))
    monkeypatch.delenv("XPMEM_EMU_CLUSTER", raising=False)
    yield Home(run, arenas)
    for folder in (run / "xpmem-emu").glob("*"):
        processes.down(folder.name)
    shutil.rmtree(run)
    shutil.rmtree(arenas)


Up = Callable[..., ClusterState]


def real_spec(name: str, count: int, *, image: str = IMAGE, event_log: bool = False) -> ClusterSpec:
    """A small cluster of partitions with the real kernel."""
    return ClusterSpec(name, numbered_partitions(count), image, 16 << 20, event_log, LEASE_S)


def fake_spec(
    count: int = 1,
    name: str = "t",
    *,
    image: str = "laptop",
    lease_s: float = LEASE_S,
    partitions: tuple[PartitionSpec, ...] = (),
    event_log: bool = False,
    command: tuple[str, ...] = FAKE,
    memory: int = 1 << 20,
    keys: str = "",
    insecure: bool = False,
) -> ClusterSpec:
    """A small cluster of partitions with the fake kernel."""
    return ClusterSpec(
        name,
        partitions or numbered_partitions(count),
        image,
        memory,
        event_log,
        lease_s,
        command,
        keys,
        insecure,
    )


@pytest.fixture
def up(home: Home) -> Up:
    """Starts a cluster of fake partitions."""
    return lambda *args, **kwargs: processes.up(fake_spec(*args, **kwargs))


@pytest.fixture
def refusal() -> Callable[..., KernelError]:
    """Calls something that must refuse, and gives the refusal."""

    def refuse(action: Callable[..., object], *args: object) -> KernelError:
        with pytest.raises(KernelError) as caught:
            action(*args)
        return caught.value

    return refuse
