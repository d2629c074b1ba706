"""Segment and permit identifiers: `partid 8 | incarnation low byte 8 | tgid 20 | uniq 20`.

At most 56 bits, so at most 14 hex digits; always positive. Opaque to users, yet the id alone
tells which partition to ask, and an id of an earlier boot of that partition is told from a
fresh one (S6). Segids and apids are counted separately, from 1, and never reused while their
thread group lives. Uniq 0 names nothing.
"""

from dataclasses import dataclass
from typing import NamedTuple

UNIQ_MAX = (1 << 20) - 1
TGID_MAX = (1 << 20) - 1
ID_MAX = (1 << 56) - 1


@dataclass(slots=True)
class LastUniq:
    """The uniq parts that a task used last. They outlive close and exec: an id of the task must
    not come back while an importer may still mean the old one."""

    segid: int = 0
    apid: int = 0


class IdParts(NamedTuple):
    """The parts of a segid or apid."""

    partid: int
    boot: int
    """Low byte of the boot incarnation."""
    tgid: int
    uniq: int

    def pack(self) -> int:
        """The 56-bit id."""
        return self.partid << 48 | (self.boot & 0xFF) << 40 | self.tgid << 20 | self.uniq


def unpack_id(ident: int) -> IdParts:
    """The parts of `ident`, which must lie in 1..ID_MAX."""
    assert 0 < ident <= ID_MAX
    return IdParts(ident >> 48, ident >> 40 & 0xFF, ident >> 20 & TGID_MAX, ident & UNIQ_MAX)
