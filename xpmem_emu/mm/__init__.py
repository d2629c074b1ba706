"""One simulated kernel's memory: frames, page tables, areas, faults, reverse map, notifiers.

Knows no partition and no message. Reads like a small 2.6.26. State comes first, in `mm_types` and
below: data, what guards it, what holds of it. Verbs are functions over state, one module a
subject, called as `munmap(mm, ...)`: start at `fault`, then read `gather` and `transit`, which
carry the order in which pages are given up. Imports point from verbs to state, and among verbs down
the list that is a contract of the import linter.
"""

from xpmem_emu.mm.access import load, reach, store, walk_word
from xpmem_emu.mm.advise import Advice, madvise, zap_page_range
from xpmem_emu.mm.audit import audit_memory
from xpmem_emu.mm.entries import insert_special, zap_special
from xpmem_emu.mm.files import create_file, pread, pwrite, unlink_file, writeback
from xpmem_emu.mm.gup import PinnedRun, pin_pages
from xpmem_emu.mm.inode import Inode
from xpmem_emu.mm.lifecycle import exit_mmap, fork
from xpmem_emu.mm.mapping import MapRequest, mmap, munmap
from xpmem_emu.mm.migrate import migrate_frames, migrate_range
from xpmem_emu.mm.mm_types import AddressSpace, MemoryContext, Vma, VmaOps
from xpmem_emu.mm.notifier import Notifier, NotifierChain
from xpmem_emu.mm.page_cache import unpin_pages
from xpmem_emu.mm.protect import mprotect
from xpmem_emu.mm.reclaim import reclaim, reclaim_range
from xpmem_emu.mm.remap import Remap, mremap
from xpmem_emu.mm.vma_flags import Prot, VmaFlags
from xpmem_emu.mm.vma_ops import DeadOps

__all__ = [
    "AddressSpace",
    "Advice",
    "DeadOps",
    "Inode",
    "MapRequest",
    "MemoryContext",
    "Notifier",
    "NotifierChain",
    "PinnedRun",
    "Prot",
    "Remap",
    "Vma",
    "VmaFlags",
    "VmaOps",
    "audit_memory",
    "create_file",
    "exit_mmap",
    "fork",
    "insert_special",
    "load",
    "madvise",
    "migrate_frames",
    "migrate_range",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "pin_pages",
    "pread",
    "pwrite",
    "reach",
    "reclaim",
    "reclaim_range",
    "store",
    "unlink_file",
    "unpin_pages",
    "walk_word",
    "writeback",
    "zap_page_range",
    "zap_special",
]
