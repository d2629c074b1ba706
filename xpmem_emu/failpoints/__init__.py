"""Failpoints: named places in the kernel where somebody outside can make something happen.

    if self.failpoints.armed:                       the whole cost while nothing is set
        await self.failpoints.reach(GUP_PIN)        a point that may sleep
    if self.failpoints.armed:
        self.failpoints.check(MMAP_RESERVE)         an atomic point

`points` lists them all, `terms` is the grammar of what they do (FreeBSD's fail(9)), `engine` is
one kernel's set of them, `nth` fails the Nth point that an operation passes. A point is put where
the real failure would be noticed, so an error returned there takes the real failure's way.
"""

from xpmem_emu.failpoints.engine import Failpoints
from xpmem_emu.failpoints.nth import FailNth
from xpmem_emu.failpoints.points import POINTS, Context, Point, find_point

__all__ = ["POINTS", "Context", "FailNth", "Failpoints", "Point", "find_point"]
