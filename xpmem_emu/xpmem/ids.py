"""Segment and permit identifiers: `partid 8 | incarnation low byte 8 | tgid 20 | uniq 20`.

At most 56 bits, so at most 14 hex digits; always positive. Where an image gives partids more than 8
bits an id grows at its top, to at most 60, and nothing else moves. Opaque to users, yet the id
alone tells which partition to ask, and an id of an earlier boot of that partition is told from a
fresh one (S6). Segids and apids are counted separately, from 1, and never reused while their
thread group lives. Uniq 0 names nothing.
"""

from dataclasses import dataclass
from typing import NamedTuple

from xpmem_emu.fields import IDENT_END, IDENT_PARTID_SHIFT

UNIQ_MAX = (1 << 20) - 1
TGID_MAX = (1 << 20) - 1


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
        """The id."""
        return (
            self.partid << IDENT_PARTID_SHIFT
            | (self.boot & 0xFF) << 40
            | self.tgid << 20
            | self.uniq
        )


def unpack_id(ident: int) -> IdParts:
    """The parts of `ident`, which must lie in 1..IDENT_END - 1."""
    assert 0 < ident < IDENT_END
    partid = ident >> IDENT_PARTID_SHIFT
    return IdParts(partid, ident >> 40 & 0xFF, ident >> 20 & TGID_MAX, ident & UNIQ_MAX)
