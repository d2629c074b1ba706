"""Copies of keys that this program needs while it runs, and that nobody needs afterwards.

    <run root>-keys/<pid>.<start>.<random>/

A folder is removed when its program ends; what a killed program left, by the next one that needs
such a folder.
"""

import atexit
import os
import secrets
from pathlib import Path

from xpmem_emu.cluster.liveness import start_ticks
from xpmem_emu.cluster.paths import make_own_folder, remove_own_folder, run_root


def temporary_keys() -> Path:
    """A folder of this user's own that lasts as long as this process. Raises KernelError."""
    pid = os.getpid()
    folder = Path(f"{run_root()}-keys") / f"{pid}.{start_ticks(pid)}.{secrets.token_hex(4)}"
    make_own_folder(folder)
    atexit.register(_remove, folder, pid)
    for stale in folder.parent.glob("*.*.*"):
        if not _runs(stale.name):
            remove_own_folder(stale)
    return folder


def _runs(name: str) -> bool:
    pid, started, _ = name.split(".", 2)
    return start_ticks(int(pid)) == int(started)


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() != pid:
        return  # a forked child ends too, and its parent goes on
    remove_own_folder(folder)
