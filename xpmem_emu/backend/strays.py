"""Partitions that live beside what the files of their cluster say.

A launcher that dies before it records what it started, a run folder or an arena folder that a
cleaner takes away: the processes go on, and must be found before anybody starts others in their
place. They are found by the life files that they hold, which `life` explains. Looks only.
"""

from collections.abc import Sequence
from pathlib import Path

from xpmem_emu.cluster.liveness import Holder, holders, life_path
from xpmem_emu.cluster.paths import arena_folder
from xpmem_emu.cluster.state import read_state
from xpmem_emu.errors import KernelError
from xpmem_emu.live.arena import arena_name


def strays_of(cluster: str) -> list[Holder]:
    """The living partitions of `cluster` that its state file does not name."""
    try:
        named = {(one.pid, one.started) for one in read_state(cluster).partitions}
    except KernelError:
        named = set()
    found = holders(arena_folder(cluster))
    return [one for one in found if (one.life.pid, one.life.started) not in named]


def missing_files(cluster: str) -> list[Path]:
    """Files that living partitions of `cluster` hold and that have lost their names."""
    folder = arena_folder(cluster)
    missing = []
    for holder in holders(folder):
        if holder.lost:
            missing.append(life_path(folder, holder.partid))
        arena = folder / arena_name(holder.partid, holder.life.boot)
        if not arena.exists():
            missing.append(arena)
    return missing


def listed(strays: Sequence[Holder]) -> str:
    """Who they are, for people."""
    return ", ".join(f"partition {one.partid} (pid {one.life.pid})" for one in strays)
