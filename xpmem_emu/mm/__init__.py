"""One simulated kernel's memory: frames, page tables, areas, faults, reverse map, notifiers.

Knows no partition and no message. Reads like a small 2.6.26: start at `address_space`, then
`fault`, then `gather` and `transit`, which carry the order in which pages are given up.
"""

from xpmem_emu.mm.access import load, reach, store, walk_word
from xpmem_emu.mm.address_space import AddressSpace
from xpmem_emu.mm.advise import Advice
from xpmem_emu.mm.gup import PinnedRun, pin_pages
from xpmem_emu.mm.inode import Inode
from xpmem_emu.mm.manager import MemoryManager
from xpmem_emu.mm.mapping import MapRequest
from xpmem_emu.mm.migrate import migrate_frames, migrate_range
from xpmem_emu.mm.notifier import Notifier, NotifierChain
from xpmem_emu.mm.reclaim import reclaim, reclaim_range
from xpmem_emu.mm.remap import Remap
from xpmem_emu.mm.vma import DeadOps, Prot, Vma, VmaFlags, VmaOps

__all__ = [
    "AddressSpace",
    "Advice",
    "DeadOps",
    "Inode",
    "MapRequest",
    "MemoryManager",
    "Notifier",
    "NotifierChain",
    "PinnedRun",
    "Prot",
    "Remap",
    "Vma",
    "VmaFlags",
    "VmaOps",
    "load",
    "migrate_frames",
    "migrate_range",
    "pin_pages",
    "reach",
    "reclaim",
    "reclaim_range",
    "store",
    "walk_word",
]
