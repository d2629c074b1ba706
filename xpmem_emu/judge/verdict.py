"""What judges say of a run: what did not hold, and the verdict over all."""

from enum import Enum

import msgspec

from xpmem_emu.judge.invariants import Invariant


class Verdict(Enum):
    """What a run says about the system; UNKNOWN: a search gave no answer."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class Violation(msgspec.Struct, frozen=True):
    """An invariant that did not hold. `partid` is -1 where no partition is to blame."""

    invariant: Invariant
    partid: int
    time_ns: int
    text: str

    def __str__(self) -> str:
        where = f" on p{self.partid}" if self.partid >= 0 else ""
        return f"{self.invariant}{where} at {self.time_ns / 1e6:.3f} ms: {self.text}"

    @property
    def timeless(self) -> str:
        """The same of a run whose clock says nothing to its reader."""
        where = f" (p{self.partid})" if self.partid >= 0 else ""
        return f"{self.invariant}: {self.text}{where}"
