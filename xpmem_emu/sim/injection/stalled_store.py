"""A partition that is stopped in the middle of a store, and finishes it when it wakes.

A kernel step is atomic, so this is done from outside and raw: when the partition is stopped, the
frames behind some of its writable foreign entries are noted, as a processor has them in hand in
the middle of a copy; when it wakes, the first thing that happens is that the words are written
there, whatever became of those frames meanwhile (S7).
"""

from collections.abc import Callable
from dataclasses import dataclass

from xpmem_emu.mm import pte
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.operations.executor import Executor
from xpmem_emu.sim.operations.registry import WORD_OFFSETS, View
from xpmem_emu.units import PAGE_SHIFT

STORES_MAX = 4
_WORD = len(WORD_OFFSETS) - 1


@dataclass(frozen=True, slots=True)
class StalledStore:
    """A store under way: into `frame` of a boot of partition `home`."""

    home: int
    boot: int
    frame: int
    view: View
    page: int
    value: int
    begin: int
    landed: Callable[[], None]
    """Told to whoever keeps track of what memory holds."""


def begin_stores(cluster: SimCluster, stage: Executor, partid: int) -> list[StalledStore]:
    """The stores in which a partition that is about to be stopped is caught."""
    found: list[StalledStore] = []
    for view in stage.cast.views.values():
        alive = view.actor.partid == partid and view.actor.boot == cluster.boot_of(partid)
        if alive and len(found) < STORES_MAX:
            found += _store(cluster, stage, view)
    return found


def land(cluster: SimCluster, stage: Executor, store: StalledStore) -> None:
    """The store reaches memory."""
    where = (store.frame << PAGE_SHIFT) + WORD_OFFSETS[_WORD]
    arena = cluster.arena(store.home, store.boot)
    arena[where : where + 8] = store.value.to_bytes(8, "little")
    store.landed()
    stage.accesses.late(store.view, store.page, _WORD, store.value, store.begin)


def _store(cluster: SimCluster, stage: Executor, view: View) -> list[StalledStore]:
    """At most one, at the first page of the view that is mapped for writing."""
    kernel = cluster.kernels[view.actor.partid]
    for mm in kernel.memory.address_spaces.values():
        if mm.pid != view.actor.pid:
            continue
        entries = mm.page_table.read_range(view.address >> PAGE_SHIFT, view.pages)
        for page, entry in enumerate(entries.tolist()):
            if entry & pte.SPECIAL and entry & pte.WRITE:
                frame = entry >> pte.FRAME_SHIFT
                home = frame >> pte.PARTID_SHIFT
                return [
                    StalledStore(
                        home,
                        _boot_in_use(cluster, view.actor.partid, home),
                        frame & pte.LOCAL_MASK,
                        view,
                        page,
                        stage.accesses.value(),
                        cluster.steps,
                        stage.accesses.begin_late(view, page, _WORD),
                    )
                ]
    return []


def _boot_in_use(cluster: SimCluster, partid: int, home: int) -> int:
    """Which boot of `home` the kernel of `partid` has a window on."""
    if home == partid:
        return cluster.boot_of(home)
    page = cluster.kernels[partid].xpc.partitions[home].remote.page
    assert page is not None
    return page.boot
