"""What hardly ever meets by chance, met for certain: somebody is held up where something else ends,
goes or is asked for meanwhile. Each scene is short, on tasks and memory of its own."""

from collections.abc import Callable
from typing import Any

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.held import set_failpoint
from xpmem_emu.sim.workloads.script import Export, Import, Script
from xpmem_emu.units import MILLISECOND

_ZAP, _INSTALL = "xpmem.invalidate.before_zap", "xpmem.fault.before_install"
_PIN, _TRANSIT, _FREE = "mm.gup.pin", "mm.transit.before_sync", "mm.gather.before_free"
_ALLOCATE, _FENCE = "mm.frames.allocate", "xpmem.fence.before_migrate"
_GOODBYE, _SERVE = "xpmem.evict.before_tell", "xpc.serve.before_reply"
_GIVEN_UP_NS = 150 * MILLISECOND
"""Silence ends a session within so much time."""


def meetings(script: Script) -> None:
    """One scene after the other."""
    while script.more():
        script.random.choice(_SCENES)(script)
        script.settle()


def _shared(
    script: Script, pages: int, users: int = 1, kind: RegionKind = RegionKind.PRIVATE
) -> tuple[Export, list[Import]]:
    """An export, and importers of all of it, each on a partition of its own if it can be."""
    everybody = list(range(script.knobs.partitions))
    script.random.shuffle(everybody)
    home, *others = everybody
    owner = script.spawn(home)
    tasks = [script.spawn(others[number % len(others)]) for number in range(users)]
    script.settle()
    export = script.export(owner, pages, kind)
    script.settle()
    views = [script.attach(task, export, 0, pages) for task in tasks]
    script.settle()
    return export, views


def _hold(script: Script, views: list[Import]) -> None:
    for view in views:
        script.do(Op.STORE, task=view.task, pages=view.pages, attachment=view.attachment)
    script.settle()


def _access(
    script: Script, view: Import | Export, page: int, op: Op = Op.LOAD, **more: int
) -> None:
    place = {"attachment": view.attachment} if isinstance(view, Import) else {"region": view.region}
    script.do(op, task=view.task, page=page, word=script.random.randrange(3), **place, **more)


def _whole(export: Export) -> dict[str, Any]:
    return {"task": export.task, "region": export.region, "pages": export.pages}


def _one_page_for_two(script: Script) -> None:
    """Two partitions want a page while it is being pinned; perhaps the pins are few."""
    random = script.random
    export, views = _shared(script, random.randint(2, 4), 2)
    few = random.random() < 0.5
    strain = {"bound": "pin_limit", "value": 1}
    if few:
        script.do(Op.CALL, task=export.task, detail="strain", values=strain)
    set_failpoint(script, export.task, "failpoint_set", _PIN, "2*delay(3ms)")
    for number, view in enumerate(views):
        _access(script, view, number if few else 0)
        script.soon(200_000)
    script.settle()
    set_failpoint(script, export.task, "failpoint_clear", _PIN)
    if few:
        script.do(Op.CALL, task=export.task, detail="strain", values=strain | {"value": 0})


def _ends_that_meet(script: Script) -> None:
    """Removals, closes and the end of a task, while a slow holder keeps the first of them."""
    random = script.random
    export, views = _shared(script, random.randint(1, 3), 2)
    other = script.export(export.task, 1, RegionKind.SCRATCH)
    script.settle()
    script.attach(views[-1].task, other, 0, 1)
    script.settle()
    _hold(script, views)
    for view in views:
        set_failpoint(
            script, view.task, "failpoint_set", _ZAP, f"1*delay({random.randint(2, 12)}ms)"
        )
    first, second = random.sample((export.segment, other.segment), 2)
    for segment in random.choice(((first,), (first, second))):
        script.do(Op.REMOVE, task=export.task, segment=segment)
        script.soon(MILLISECOND)
    for op in random.choices((Op.CLOSE, Op.CLOSE, Op.CLOSE, Op.EXEC, Op.KILL), k=2):
        script.do(op, task=export.task)
        script.soon(2 * MILLISECOND)
    script.now_ns += 20 * MILLISECOND


def _arrivals(script: Script) -> None:
    """Pages in transit are wanted, and their frames go back to the allocator later."""
    export, _ = _shared(script, script.random.randint(1, 3))
    script.do(Op.STORE, **_whole(export))
    script.settle()
    set_failpoint(script, export.task, "failpoint_set", _TRANSIT, "1*delay(2ms)")
    set_failpoint(script, export.task, "failpoint_set", _FREE, "1*delay(3ms)")
    script.do(script.random.choice((Op.MIGRATE, Op.PAGEOUT)), **_whole(export))
    script.soon(MILLISECOND)
    for op in (Op.STORE, Op.LOAD):
        _access(script, export, script.random.randrange(export.pages), op)
    script.settle()


def _readers(script: Script) -> None:
    """Accesses wait for a munmap whose holder is slow, and then each for a frame."""
    export, views = _shared(script, 1)
    fresh = Export(export.task, script.number(), 0, 4)
    script.do(Op.MMAP, task=fresh.task, made=fresh.region, pages=4, detail=RegionKind.PRIVATE)
    _hold(script, views)
    set_failpoint(script, views[0].task, "failpoint_set", _ZAP, "1*delay(3ms)")
    script.do(Op.MUNMAP, **_whole(export))
    script.soon(MILLISECOND)
    set_failpoint(script, export.task, "failpoint_set", _ALLOCATE, "delay(1ms)")
    for page in (0, 0, 1, 2, 2):
        _access(script, fresh, page, script.random.choice((Op.LOAD, Op.STORE)))
    script.now_ns += 10 * MILLISECOND
    set_failpoint(script, export.task, "failpoint_clear", _ALLOCATE)


def _goodbye(script: Script) -> None:
    """The last pages are on their way home when the first ones are wanted."""
    random = script.random
    pages = random.randint(3, 5)
    export, views = _shared(script, pages)
    user, kept = views[0].task, random.randint(1, pages - 1)
    permit = views[0].permit
    script.do(Op.DETACH, task=user, attachment=views[0].attachment)
    script.settle()
    tail = Import(user, export, permit, script.number(), kept, pages - kept)
    whole = Import(user, export, permit, script.number(), 0, pages)
    for view in (tail, whole):
        script.do(
            Op.ATTACH,
            task=user,
            made=view.attachment,
            permit=permit,
            page=view.first,
            pages=view.pages,
        )
        script.settle()
        if view is tail:
            _hold(script, [tail])
            set_failpoint(script, user, "failpoint_set", _GOODBYE, "1*delay(25ms)")
            script.do(Op.DETACH, task=user, attachment=tail.attachment)
            script.soon(MILLISECOND)
    for page in range(kept):
        _access(script, whole, page)
        script.soon(2 * MILLISECOND)
    script.now_ns += 30 * MILLISECOND


def _fork_outlives_permit(script: Script) -> None:
    """Two partitions wait for a fork to end; the task of one is killed, and its permit goes."""
    random = script.random
    export, views = _shared(script, random.randint(1, 2), 2)
    fork = {"task": export.task}
    script.do(Op.CALL, detail="xpmem_fork_begin", **fork)
    script.settle()
    random.shuffle(views)
    for view in views:
        _access(script, view, 0)
        script.soon(MILLISECOND)
    script.settle()
    script.do(random.choice((Op.KILL, Op.EXEC)), task=views[0].task)
    script.now_ns += 15 * MILLISECOND
    script.do(Op.CALL, detail="xpmem_fork_end", **fork)
    script.settle()


def _attached_over_a_recall(script: Script) -> None:
    """The only attachment of a permit takes the place of what somebody slow holds, or waits until
    that is unmapped, and the permit is released."""
    random = script.random
    export, views = _shared(script, 1)
    user, permit = views[0].task, views[0].permit
    script.do(Op.DETACH, task=user, attachment=views[0].attachment)
    own = script.export(user, 1, RegionKind.SCRATCH)
    script.settle()
    holder = script.attach(export.task, own, 0, 1)
    script.settle()
    script.do(
        Op.CALL, task=export.task, detail="load", attachment=holder.attachment, values={"size": 8}
    )
    script.settle()
    set_failpoint(script, export.task, "failpoint_set", _ZAP, "1*delay(6ms)")
    attach: dict[str, Any] = {"region": own.region, "values": {"offset": 0}}
    if random.random() < 0.5:
        script.do(Op.MUNMAP, **_whole(own))
        script.soon(MILLISECOND)
        attach = {"values": {"offset": 0, "vaddr": 0}}
    script.do(Op.CALL, task=user, detail="xpmem_attach", permit=permit, pages=1, **attach)
    script.now_ns += random.choice((1, 2, 4)) * MILLISECOND
    script.do(Op.CALL, task=user, detail="xpmem_release", permit=permit)
    script.now_ns += 20 * MILLISECOND


def _attached_late(script: Script) -> None:
    """The answer to an attach comes when nobody waits for it any more."""
    export, views = _shared(script, 1)
    delay = script.random.choice((200, 600))
    set_failpoint(script, export.task, "failpoint_set", _SERVE, f"1*delay({delay}ms)")
    script.do(
        Op.ATTACH, task=views[0].task, made=script.number(), permit=views[0].permit, page=0, pages=1
    )
    script.now_ns += (delay + 100) * MILLISECOND
    set_failpoint(script, export.task, "failpoint_clear", _SERVE)


def _got_late(script: Script) -> None:
    """A task closes the device while a permit is on its way to it."""
    export, views = _shared(script, 1)
    set_failpoint(script, export.task, "failpoint_set", _SERVE, "1*delay(6ms)")
    script.do(Op.GET, task=views[0].task, made=script.number(), segment=export.segment)
    script.now_ns += 2 * MILLISECOND
    script.do(Op.CLOSE, task=views[0].task)
    script.settle()
    set_failpoint(script, export.task, "failpoint_clear", _SERVE)


def _copied_after_release(script: Script) -> None:
    """A block copy waits for a frame at its home, and its permit or segment goes meanwhile."""
    export, views = _shared(script, 1, 1, RegionKind.SCRATCH)
    set_failpoint(script, export.task, "failpoint_set", _ALLOCATE, "1*delay(5ms)")
    permit = views[0].permit
    script.do(
        Op.CALL,
        task=views[0].task,
        permit=permit,
        into=permit,
        detail="xpmem_copy",
        values={"src_offset": 0, "dst_offset": 8, "size": 8},
    )
    script.now_ns += 3 * MILLISECOND
    if script.random.random() < 0.5:
        script.do(Op.REMOVE, task=export.task, segment=export.segment)
    else:
        script.do(Op.RELEASE, task=views[0].task, permit=permit)
    script.settle()
    set_failpoint(script, export.task, "failpoint_clear", _ALLOCATE)


def _given_up(script: Script) -> None:
    """An importer that does not do what a recall asks is given up, while an answer lies there, a
    page is in transit, or the exporter ends: what it left is a page of a file."""
    random = script.random
    ends = random.random() < 0.5
    kind = RegionKind.FILE if ends else RegionKind.PRIVATE
    export, views = _shared(script, random.randint(2, 4), 1, kind)
    view = views[0]
    _access(script, view, 0, Op.STORE)
    script.settle()
    set_failpoint(script, view.task, "failpoint_set", _ZAP, "pause")
    if ends:
        set_failpoint(script, export.task, "failpoint_set", _FENCE, "1*delay(20ms)")
        script.do(Op.EXIT, task=export.task)
    else:
        script.do(Op.DONTNEED, task=export.task, region=export.region, page=1, pages=1)
        set_failpoint(script, view.task, "failpoint_set", _INSTALL, "1*pause")
        _access(script, view, 1)
        script.settle()
        set_failpoint(script, export.task, "failpoint_set", _TRANSIT, "1*delay(300ms)")
        script.do(Op.MIGRATE, **_whole(export))
        script.soon(MILLISECOND)
        script.do(Op.REMOVE, task=export.task, segment=export.segment)
    script.now_ns += _GIVEN_UP_NS
    set_failpoint(script, view.task, "failpoint_clear", _ZAP)
    script.now_ns += 2 * _GIVEN_UP_NS
    for point in (_INSTALL, _TRANSIT, _FENCE):
        set_failpoint(
            script, export.task if point is not _INSTALL else view.task, "failpoint_clear", point
        )


_SCENES: tuple[Callable[[Script], None], ...] = (
    _one_page_for_two,
    _ends_that_meet,
    _arrivals,
    _readers,
    _goodbye,
    _fork_outlives_permit,
    _attached_over_a_recall,
    _attached_late,
    _got_late,
    _copied_after_release,
    _given_up,
)
