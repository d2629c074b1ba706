"""Who is let in at the moment: the allow-list as a running partition sees it.

The file is looked at by its time and inode, which costs next to nothing, so it may be asked before
every handshake. A list that cannot be read changes nothing: the last good one stays in force, and
the log says so once.
"""

import os

from xpmem_emu.cluster.keys import AllowList, Client, Key, KeyFolder, Peer
from xpmem_emu.errors import KernelError
from xpmem_emu.live import log


class LiveAllowList:
    """The live view of one key folder."""

    def __init__(self, folder: KeyFolder) -> None:
        """Raises KernelError when there is no allow-list to begin with."""
        self._folder = folder
        self._stamp = _stamp(folder)
        self._allow = AllowList()
        self._by_public: dict[str, Key] = {}
        self._take(folder.read())

    def refresh(self) -> bool:
        """Read the list again if the file changed; True: something may be different now."""
        stamp = _stamp(self._folder)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._take(self._folder.read())
        except KernelError as error:
            log.error("the allow-list stays as it was", why=str(error), remedy=error.remedy)
            return False
        log.info("allow-list read again", keys=len(self._by_public))
        return True

    def client(self, public: str) -> Key | None:
        """The client with that public key, if it is let in."""
        key = self._by_public.get(public)
        return key if key is not None and isinstance(key.role, Client) else None

    def peer(self, public: str) -> int | None:
        """The partid of the partition with that public key, if it is let in."""
        key = self._by_public.get(public)
        return key.role.partid if key is not None and isinstance(key.role, Peer) else None

    def public_of(self, partid: int) -> str | None:
        """The public key of a partition."""
        key = self._allow.partition(partid)
        return key.public if key is not None else None

    def why_not(self, public: str) -> str:
        """Why nobody with that key is let in, for the log."""
        revoked = next((key for key in self._allow.revoked if key.public == public), None)
        if revoked is not None:
            return f"the key of {revoked.name} was revoked"
        key = self._by_public.get(public)
        return f"the key of {key.name} opens other doors" if key else "the key is on no list"

    def _take(self, allow: AllowList) -> None:
        self._allow = allow
        self._by_public = {key.public: key for key in allow.keys}


def _stamp(folder: KeyFolder) -> tuple[int, int, int]:
    try:
        facts = os.stat(folder.allow_path)
    except OSError:
        return 0, 0, 0
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
