"""The worlds: each a meeting of two things that the kernels must get right in every order.

Tasks and regions of p0 are exporters; 1 is the one that the world is about, 9 is a stranger, who
gets whatever frames become free. Importers are tasks 2 and up.
"""

from collections.abc import Iterator

from xpmem_emu.failpoints.points import FAULT_REPLY, GUP_PIN, SERVE_ACCESS, XPC_SERVE
from xpmem_emu.judge.invariants import Invariant
from xpmem_emu.sim.explore.world import (
    Complaint,
    Program,
    RunningWorld,
    World,
    act,
    exporting,
    holding,
    importing,
    in_session,
    outside_act,
    planned,
    small_image,
)
from xpmem_emu.sim.plan import Op

LAST_WORD = 2
"""The tracked word that stopped partitions store into."""


# -- what must hold in the end ------------------------------------------------------------------


def _protected_page_stays(ground: RunningWorld) -> Iterator[Complaint]:
    """What mprotect has made read-only does not change any more."""
    then, now = ground.noted.get("page 0"), ground.peek(1, 0, LAST_WORD)
    if then is not None and now is not None and then != now:
        yield Invariant.S7, f"a page changed from {then} to {now} after mprotect had returned"


def _released_permit_shows_nothing(ground: RunningWorld) -> Iterator[Complaint]:
    """Whoever released a permit sees nothing through it afterwards."""
    if ground.went_well("release task 2 permit 1") and ground.went_well("load task 2 attachment 7"):
        yield Invariant.S10, "a page is seen through a permit that was released before"


# -- what happens from outside --------------------------------------------------------------------


def _look(ground: RunningWorld) -> None:
    """Note the word that a stopped partition stores into, past every kernel."""
    value = ground.peek(1, 0, LAST_WORD)
    if value is not None:
        ground.noted["page 0"] = value


_INFLIGHT_RACE = World(
    name="inflight-race",
    gist="an importer faults on a page while its exporter unmaps it",
    setup=(*exporting(2), *importing(2, 1, pages=2), planned(Op.STORE, task=1, region=1)),
    programs=(
        Program("importer", 1, (
            act(Op.LOAD, task=2, attachment=1), act(Op.STORE, task=2, attachment=1, page=1),
        )),
        Program("exporter", 0, (
            act(Op.STORE, task=1, region=1), act(Op.LOAD, task=1, region=1),
            act(Op.MUNMAP, task=1, region=1, pages=1), act(Op.REMAP, task=1, region=1, pages=1),
            act(Op.STORE, task=1, region=1, label="again"),
        )),
    ),
    picks=(0, 1),
)  # fmt: skip

_TWO_RECALLS = World(
    name="two-recalls",
    gist="two calls take overlapping pages away from two importers",
    setup=(
        *exporting(2), *importing(2, 1, n=1, pages=2), *importing(3, 2, n=2, pages=2),
        *holding(2, 1, 2), *holding(3, 2, 2),
    ),
    partitions=3,
    programs=(
        Program("protect", 0, (act(Op.PROTECT, task=1, region=1, pages=2, detail="read"),)),
        Program("dontneed", 0, (act(Op.DONTNEED, task=1, region=1, page=1, pages=1),)),
        Program("importer", 1, (act(Op.STORE, task=2, attachment=1, page=1),)),
    ),
    picks=(0,),
)  # fmt: skip

_FENCE_WAKE = World(
    name="fence-wake",
    gist="an exporter gives a stopped importer up, which then wakes inside a store",
    setup=(
        *exporting(2), *importing(2, 1, n=1, pages=2), *importing(3, 2, n=2, pages=2),
        planned(Op.STORE, task=3, attachment=2, page=1), *holding(2, 1, 2),
    ),
    partitions=3,
    programs=(
        Program("exporter", 0, (
            act(Op.PROTECT, task=1, region=1, pages=1, detail="read"),
            outside_act("somebody looks at page 0", _look),
            act(Op.LOAD, task=1, region=1, word=LAST_WORD),
        )),
        Program("lost", 1, (act(Op.STORE, task=2, attachment=1),)),
        Program("healthy", 2, (act(Op.STORE, task=3, attachment=2, page=1),)),
    ),
    finale=(act(Op.MUNMAP, task=1, region=1, page=1, pages=1),),
    stops=(1,),
    crashes=(1,),
    picks=(0,),
    check=_protected_page_stays,
)  # fmt: skip

_DETACH_FAULT = World(
    name="detach-fault",
    gist="one thread of an importer faults while another one detaches",
    setup=(
        *exporting(2), *importing(2, 1, pages=2),
        planned(Op.ATTACH, task=2, permit=1, pages=2, made=2),
        planned(Op.STORE, task=1, region=1),
    ),
    programs=(
        Program("faulter", 1, (
            act(Op.LOAD, task=2, attachment=1), act(Op.STORE, task=2, attachment=2),
        )),
        Program("detacher", 1, (
            act(Op.DETACH, task=2, attachment=1),
            act(Op.LOAD, task=2, attachment=2, page=1),
        )),
        Program("exporter", 0, (act(Op.DONTNEED, task=1, region=1, pages=1),)),
    ),
    kills=(2,),
    picks=(1,),
)  # fmt: skip

_REMOVE_ATTACH = World(
    name="remove-attach",
    gist="an importer attaches while the segment is removed and its permit is released",
    setup=(
        *exporting(1), *importing(2, 1), *holding(2, 1, 1),
        # What it attaches over is held by p2, so that attaching has to recall it.
        planned(Op.MMAP, task=2, made=7, pages=1, detail="scratch"),
        planned(Op.MAKE, task=2, region=7, pages=1, made=7),
        *importing(3, 2, segment=7, n=5), *holding(3, 5, 1),
    ),
    partitions=3,
    programs=(
        Program("attacher", 1, (act(Op.ATTACH, task=2, permit=1, pages=1, made=7),)),
        Program("releaser", 1, (
            act(Op.LOAD, task=2, attachment=1), act(Op.STORE, task=2, attachment=1),
            act(Op.RELEASE, task=2, permit=1),
            act(Op.LOAD, task=2, attachment=7, after="attach task 2 permit 1 pages 1"),
        )),
        Program("remover", 0, (
            act(Op.LOAD, task=1, region=1), act(Op.STORE, task=1, region=1),
            act(Op.REMOVE, task=1, segment=1), act(Op.STORE, task=1, region=1, label="again"),
        )),
    ),
    kills=(2,),
    check=_released_permit_shows_nothing,
)  # fmt: skip

_EXEC_CLOSE = World(
    name="exec-close",
    gist="one thread of an exporter closes the device while another one calls exec",
    setup=(*exporting(1), *importing(2, 1), *holding(2, 1, 1)),
    programs=(
        Program("closer", 0, (act(Op.CLOSE, task=1),)),
        Program("execer", 0, (act(Op.EXEC, task=1),)),
        Program("importer", 1, (
            act(Op.STORE, task=2, attachment=1), act(Op.LOAD, task=2, attachment=1),
        )),
        Program("attacher", 1, (
            act(Op.GET, task=2, segment=1, made=2),
            act(Op.ATTACH, task=2, permit=2, pages=1, made=2),
            act(Op.LOAD, task=2, attachment=2),
        )),
    ),
    kills=(1,),
    picks=(0,),
)  # fmt: skip

_SESSION_CHANGE = World(
    name="session-change",
    gist="messages and threads of an old session are late in the new one",
    setup=(
        *exporting(1), *exporting(1, n=9), *importing(2, 1), planned(Op.STORE, task=1, region=1),
    ),
    programs=(
        Program("faulter", 1, (act(Op.LOAD, task=2, attachment=1),)),
        Program("detacher", 1, (
            act(Op.DETACH, task=2, attachment=1),
            act(Op.GET, task=2, segment=9, made=8),
            outside_act("p1 gives p0 up", lambda ground: ground.give_up(1, 0),
                    after="load task 2 attachment 1"),
        )),
        Program("later", 1, (
            in_session(act(Op.SPAWN, partid=1, made=3, after="p1 gives p0 up")),
            act(Op.GET, task=3, segment=1, made=3),
            act(Op.ATTACH, task=3, permit=3, pages=1, made=3),
            act(Op.STORE, task=3, attachment=3),
        )),
    ),
    finale=(
        act(Op.MUNMAP, task=1, region=1, pages=1), act(Op.STORE, task=9, region=9),
        act(Op.LOAD, task=3, attachment=3),
    ),
    images=(small_image(control_ms=50),),
    stalls=(XPC_SERVE,),
)  # fmt: skip

_FAR_REMOVE = World(
    name="far-remove",
    gist="an importer of another domain stores while the segment is removed",
    setup=(
        *exporting(1), *importing(2, 1), *importing(3, 1, n=2),
        planned(Op.STORE, task=1, region=1),
    ),
    images=(small_image("A"), small_image("B")),
    programs=(
        Program("importer", 1, (
            act(Op.STORE, task=2, attachment=1), act(Op.LOAD, task=2, attachment=1),
            act(Op.STORE, task=2, attachment=1, label="again"),
        )),
        Program("other", 1, (
            act(Op.STORE, task=3, attachment=2), act(Op.DETACH, task=3, attachment=2),
        )),
        Program("exporter", 0, (
            act(Op.LOAD, task=1, region=1), act(Op.REMOVE, task=1, segment=1),
            act(Op.STORE, task=1, region=1), act(Op.LOAD, task=1, region=1, label="again"),
        )),
    ),
    kills=(2,),
    picks=(0,),
    stalls=(SERVE_ACCESS,),
)  # fmt: skip

_BOOT_OVER = World(
    name="boot-over",
    gist="a partition boots while its former process is merely stopped, which then wakes",
    setup=(*exporting(1), *exporting(12, n=9), *importing(2, 1), *holding(2, 1, 1)),
    programs=(
        Program("outside", 1, (
            outside_act("p1 is stopped", lambda ground: ground.stop(1)),
            outside_act("p1 boots over it", lambda ground: ground.boot_over(1),
                    after="munmap task 1 region 1 pages 1"),
            outside_act("the stopped process wakes", lambda ground: ground.land(1, 1),
                    after="store task 9 region 9 pages 12"),
        )),
        Program("exporter", 0, (
            act(Op.MUNMAP, task=1, region=1, pages=1, after="p1 is stopped"),
            in_session(act(Op.STORE, task=9, region=9, pages=12, after="p1 boots over it")),
            act(Op.LOAD, task=9, region=9, pages=12, after="the stopped process wakes"),
        )),
    ),
    crashes=(0,),
)  # fmt: skip

_KILL_RECALL = World(
    name="kill-recall",
    gist="a task is killed in its munmap, while other tasks share memory with the same importer",
    setup=(
        *exporting(2), *exporting(1, n=9), *importing(2, 1, pages=2), *holding(2, 1, 2),
        *importing(3, 1, segment=9, n=9), planned(Op.STORE, task=3, attachment=9),
    ),
    programs=(
        Program("exporter", 0, (act(Op.MUNMAP, task=1, region=1, pages=1),)),
        Program("protecter", 0, (
            act(Op.PROTECT, task=1, region=1, page=1, pages=1, detail="read"),
            act(Op.FORK, task=1, made=5),
        )),
        Program("importer", 1, (act(Op.STORE, task=2, attachment=1, page=1),)),
        Program("bystander", 1, (act(Op.LOAD, task=3, attachment=9),)),
    ),
    kills=(1, 2),
    picks=(0,),
)  # fmt: skip

_KILL_FAULT = World(
    name="kill-fault",
    gist="a task is killed in a fault, and another one comes to that segment before the answer",
    setup=(*exporting(1), *importing(2, 1), planned(Op.SPAWN, partid=1, made=3)),
    programs=(
        Program("faulter", 1, (act(Op.LOAD, task=2, attachment=1),)),
        Program("killer", 1, (act(Op.KILL, task=2),)),
        Program("newcomer", 1, (act(Op.GET, task=3, segment=1, made=3),)),
    ),
    stalls=(GUP_PIN, FAULT_REPLY),
)  # fmt: skip

_POISON_FENCE = World(
    name="poison-fence",
    gist="a frame of an exporter goes bad, and an importer that holds it is lost",
    setup=(*exporting(2), *importing(2, 1, pages=2), *holding(2, 1, 2)),
    programs=(
        Program("outside", 0, (
            outside_act("page 0 goes bad", lambda ground: ground.poison(1, 0)),
        )),
        Program("exporter", 0, (
            act(Op.PROTECT, task=1, region=1, page=1, pages=1, detail="read",
                after="page 0 goes bad"),
            act(Op.PAGEOUT, task=1, region=1, pages=2),
        )),
    ),
    stops=(1,),
    crashes=(1,),
)  # fmt: skip

WORLDS: dict[str, World] = {
    world.name: world
    for world in (
        _INFLIGHT_RACE, _TWO_RECALLS, _FENCE_WAKE, _DETACH_FAULT, _REMOVE_ATTACH, _EXEC_CLOSE,
        _SESSION_CHANGE, _FAR_REMOVE, _BOOT_OVER, _KILL_FAULT, _KILL_RECALL,
        _POISON_FENCE,
    )
}  # fmt: skip
