"""Who may have a permit: the System V IPC rule (sources 1.6).

The object's owner is the uid and gid that the exporter had when it opened the device; the
subject is the caller's effective uid and groups. Exactly one of the three permission triples is
consulted, so an owner can be refused what others may do. Execute bits mean nothing.
CAP_IPC_OWNER overrides a refusal. Judged once, at get, and never again.
"""

from collections.abc import Sequence

READ, WRITE = 4, 2


def permitted(
    mode: int, owner: tuple[int, int], uid: int, gids: Sequence[int], *, wanted: int
) -> bool:
    """Whether `uid` with `gids` may do `wanted` (READ | WRITE) to an object of `owner`
    (uid, gid) with permission bits `mode`."""
    owner_uid, owner_gid = owner
    if uid == owner_uid:
        triple = mode >> 6
    elif owner_gid in gids:
        triple = mode >> 3
    else:
        triple = mode
    return wanted & ~triple == 0
