"""What a campaign may draw, with bounds: the `[swarm]` part of a scenario file.

A swarm is inert data; `world` draws from it. Every bound is inclusive.
"""

import errno
from pathlib import Path

import msgspec

from xpmem_emu import toml
from xpmem_emu.errors import KernelError
from xpmem_emu.fields import misfit_named
from xpmem_emu.image import NotifierDesign, RmapLock
from xpmem_emu.judge.sometimes import EVERYDAY, MEANINGS
from xpmem_emu.sim.workloads import WORKLOADS
from xpmem_emu.units import parse_time

Between = tuple[int, int]


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the world and its image."""

    partitions: Between = (2, 8)
    frames: Between = (64, 512)
    swap_pages: Between = (16, 256)
    slots: Between = (2, 16)
    window: Between = (0, 16)
    """Fault-around, before and after each."""
    batch: Between = (1, 64)
    collisions: Between = (0, 4)
    inflight: Between = (1, 32)
    operations: Between = (60, 240)
    threads: Between = (4096, 4096)
    tasks: Between = (1024, 1024)
    permits: Between = (4096, 4096)
    attachments: Between = (4096, 4096)
    ranges: Between = (8192, 8192)
    gru_entries: Between = (512, 512)
    gru_asids: Between = (1 << 20, 1 << 20)
    """Limits of the image."""
    domains: str = ""
    """Letters of which each partition draws its coherence domain; empty: one for all."""
    readonly_attach: float = 0.0
    """With which probability the image has that extension."""


class Times(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of durations, as text with a unit."""

    latency: tuple[str, str] = ("5us", "2ms")
    load: tuple[str, str] = ("100ms", "500ms")
    hang: tuple[str, str] = ("5ms", "600ms")
    down: tuple[str, str] = ("20ms", "500ms")
    poison: tuple[str, str] = ("10ms", "180ms")
    """How long frames stay bad."""

    def bounds_ns(self, name: str) -> Between:
        """The bounds of one of them in nanoseconds."""
        low, high = getattr(self, name)
        return parse_time(low), parse_time(high)


class Faulty(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many faults of each kind a run may have, and how strong message faults may be."""

    rules: Between = (0, 5)
    splits: Between = (0, 1)
    crashes: Between = (0, 2)
    hangs: Between = (0, 2)
    clocks: Between = (0, 2)
    strains: Between = (0, 2)
    failpoints: float = 0.25
    """With which probability each failpoint is armed, in a run that arms any, and fires."""
    probability: tuple[float, float] = (0.01, 0.5)
    kinds: tuple[str, ...] = ()
    """Types of messages that rules are about; empty: those that matter most."""
    supersedes: Between = (0, 0)
    """Processes that are stopped, and others booted over them."""
    poisons: float = 0.12
    """With which probability frames of one partition go bad."""
    malicious: Between = (0, 0)
    """Partitions that make messages up."""
    pauses: float = 0.0
    """With which probability each failpoint that may sleep pauses a few threads for some time."""
    panics: float = 0.0
    """With which probability each failpoint panics its kernel once."""


class Swarm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole description. `workloads` gives each workload its weight."""

    name: str
    sizes: Sizes = Sizes()
    times: Times = Times()
    faults: Faulty = Faulty()
    designs: tuple[tuple[NotifierDesign, RmapLock], ...] = (
        (NotifierDesign.DEFERRED, RmapLock.SPINLOCK),
    )
    """Notifier designs with locks, of which a world has one."""
    workloads: dict[str, int] = {}
    sometimes_after: int = 300
    """Seeds after which every situation must have been reached."""
    situations: tuple[str, ...] = tuple(EVERYDAY)


class _File(msgspec.Struct, frozen=True):
    swarm: Swarm


def read_swarm(path: Path) -> Swarm:
    """The swarm of a scenario file. Raises KernelError EINVAL, which names the key."""
    try:
        swarm = msgspec.convert(toml.parse(toml.read_text(path)), _File).swarm
        _check(swarm)
        return swarm
    except (toml.TomlError, msgspec.ValidationError) as error:
        raise KernelError(
            errno.EINVAL,
            f"{path.name} describes no swarm: {misfit_named(str(error))}",
            "see docs/simulation.md",
        ) from None


def _check(swarm: Swarm) -> None:
    """Names that nobody knows are refused here, not in the middle of a campaign."""
    for what, names, known in (
        ("workload", list(swarm.workloads), list(WORKLOADS)),
        ("situation", swarm.situations, list(MEANINGS)),
    ):
        for name in names:
            if name not in known:
                raise msgspec.ValidationError(f"there is no {what} {name!r}")
    if not any(swarm.workloads.values()):
        raise msgspec.ValidationError("it has no workloads, or none with a weight")
    for part in ("sizes", "faults"):
        for key, bounds in msgspec.structs.asdict(getattr(swarm, part)).items():
            if isinstance(bounds, tuple) and len(bounds) == 2 and bounds[0] > bounds[1]:
                raise msgspec.ValidationError(f"{part}.{key}: {bounds[0]} is above {bounds[1]}")
