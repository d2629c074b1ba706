"""Where the data that ships with the emulator is: images, topologies, scenarios.

An installed wheel carries the folder inside the package (`xpmem_emu/partitions`); a checkout has
it at the repository root, beside the package. Nothing here reads or understands the files.
"""

import errno
from collections.abc import Sequence
from pathlib import Path

from xpmem_emu.errors import KernelError

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = (_PACKAGE / "partitions", _PACKAGE.parent / "partitions")


def shipped_folder(kind: str) -> Path:
    """The folder of one kind of data: `images`, `topologies`, `scenarios`. Raises KernelError."""
    for folder in _FOLDERS:
        if (folder / kind).is_dir():
            return folder / kind
    raise KernelError(
        errno.ENOENT, f"this installation has no {kind}", "install xpmem-emu again, complete"
    )


def shipped_compose() -> Path:
    """The docker-compose file. Raises KernelError."""
    for folder in _FOLDERS:
        path = folder.parent / "docker-compose.yml"
        if path.is_file():
            return path
    raise KernelError(
        errno.ENOENT,
        "this installation has no docker-compose.yml",
        "install xpmem-emu again, complete",
    )


def shipped_names(kind: str) -> Sequence[str]:
    """Names of the shipped files of `kind`, without `.toml`, sorted."""
    return sorted(path.stem for path in shipped_folder(kind).glob("*.toml"))


def find_toml(kind: str, name: str, beside: Path | None = None) -> Path:
    """The file that `name` means: a path when it ends in `.toml` (relative to the folder
    `beside`, or to the working directory), else the shipped file of that name.

    Raises KernelError ENOENT, which lists the shipped names.
    """
    path = (
        (beside or Path()) / name
        if name.endswith(".toml")
        else (shipped_folder(kind) / f"{name}.toml")
    )
    if path.is_file():
        return path
    known = ", ".join(shipped_names(kind))
    raise KernelError(
        errno.ENOENT,
        f"there is no {name!r} in {kind}",
        f"one of {known}, or the path of a .toml file",
    )
