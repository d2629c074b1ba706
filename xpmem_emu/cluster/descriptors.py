"""Files of a folder, found at the processes of this machine that hold them open.

A cleaner can take the names of files away while partitions live (a logout with RemoveIPC, one of
/tmp): what they hold open stays, and `/proc` still tells which name it had. So a process that holds
a file of the cluster is found although every name is gone, and its file can be opened again. Only
processes of this user and of this pid namespace can be seen: another container's cannot.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_LOST = " (deleted)"


class OpenFile(NamedTuple):
    """A file that process `pid` holds. `link` opens it; `lost`: the name it had is gone."""

    pid: int
    name: str
    link: Path
    lost: bool


def open_files(folder: Path) -> Iterator[OpenFile]:
    """Every descriptor of a file that is, or was, in `folder`. The folder need not exist."""
    prefix = f"{folder.resolve()}/"
    for process in os.listdir("/proc"):
        if process.isdecimal():
            with suppress(OSError):  # it ended meanwhile, or is not ours
                yield from _of_process(int(process), prefix)


def lost_file(path: Path) -> Path | None:
    """A link that opens the file that had the name `path` and has none any more."""
    for file in open_files(path.parent):
        if file.lost and file.name == path.name:
            return file.link
    return None


def _of_process(pid: int, prefix: str) -> Iterator[OpenFile]:
    descriptors = Path(f"/proc/{pid}/fd")
    for number in os.listdir(descriptors):
        with suppress(OSError):
            target = os.readlink(descriptors / number)
            name = target.removeprefix(prefix)
            if name != target:
                lost = name.endswith(_LOST)
                yield OpenFile(pid, name.removesuffix(_LOST), descriptors / number, lost)
