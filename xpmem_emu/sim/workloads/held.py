"""What crosses, crosses for certain: an importer is held at a failpoint, its exporter goes on."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import WORDS, Export, Import, Script
from xpmem_emu.units import MILLISECOND

_CHASES = (Op.REMAP, Op.DONTNEED, Op.MIGRATE)
_RECALLS = (
    Op.MUNMAP,
    Op.PROTECT,
    Op.PROTECT,
    Op.FORK,
    Op.FORK,
    Op.DONTNEED,
    Op.REMAP,
    Op.PAGEOUT,
    Op.MIGRATE,
    Op.REMOVE,
    Op.CLOSE,
)
_INSTALL, _ZAP = "xpmem.fault.before_install", "xpmem.invalidate.before_zap"
_SLOW = [
    (f"xpmem.fault.before_{what}", f"1*delay({time})")
    for what in ("pin", "reply")
    for time in ("200ms", "600ms")
]
"""Some of it is longer than anybody waits for a page."""
_LATE = ("xpc.serve.before_handler", "1*delay(30ms)->1*off->1*delay(90ms)")
"""After the goodbye of its attachment, and before that of its permit."""
_ACCESS, _FENCE = "xpmem.serve.before_access", "xpmem.fence.before_migrate"


def crossed(script: Script) -> None:
    """The answer to a fault lies there for a while, again and again, while its page moves."""
    random = script.random
    export, view = _pair(script)
    while script.more():
        page = random.randrange(export.pages)
        set_failpoint(script, view.task, "failpoint_set", _INSTALL, "delay(3ms)")
        script.do(
            Op.LOAD,
            task=view.task,
            page=page,
            attachment=view.attachment,
            word=random.randrange(WORDS),
        )
        for _ in range(random.randint(3, 8)):
            script.soon(3 * MILLISECOND)
            script.do(
                random.choice(_CHASES), task=export.task, region=export.region, page=page, pages=1
            )
        set_failpoint(script, view.task, "failpoint_clear", _INSTALL)
        script.settle()


def stranded(script: Script) -> None:
    """An importer does not get to what a recall asks of it, and is given up: the call that
    recalled returns when nothing of that importer can be stored there any more."""
    random = script.random
    while script.more():
        export, view = _pair(script)
        script.do(Op.STORE, task=view.task, pages=view.pages, attachment=view.attachment)
        script.settle()
        set_failpoint(script, view.task, "failpoint_set", _ZAP, "pause")
        if random.random() < 0.5:  # a fence that takes its time: nobody may return before it ends
            delay = random.choice(("20ms", "20ms", "400ms"))  # or ends when it is not needed
            set_failpoint(script, export.task, "failpoint_set", _FENCE, f"1*delay({delay})")
        script.do(
            random.choice(_RECALLS),
            task=export.task,
            made=script.number(),
            region=export.region,
            segment=export.segment,
            pages=export.pages,
            detail="read",
        )
        script.now_ns += 150 * MILLISECOND
        set_failpoint(script, view.task, "failpoint_clear", _ZAP)
        set_failpoint(script, export.task, "failpoint_clear", _FENCE)
        script.now_ns += 100 * MILLISECOND
        script.touch(export, Op.LOAD)


def overdue(script: Script) -> None:
    """A block copy is not served in time, and fails alone: its sides go on with each other."""
    random = script.random
    while script.more():
        export, view = _pair(script, RegionKind.SCRATCH)
        set_failpoint(
            script, export.task, "failpoint_set", _ACCESS, f"{random.randint(1, 3)}*pause"
        )
        for _ in range(2):
            _copy(script, view)
        script.now_ns += 300 * MILLISECOND
        set_failpoint(script, export.task, "failpoint_clear", _ACCESS)
        for _ in range(random.randint(8, 12)):
            script.soon(150 * MILLISECOND)
            _copy(script, view)


def unhurried(script: Script) -> None:
    """An exporter takes its time over a fault, and says so: nobody is given up for that. Perhaps
    nobody waits any more when it answers, though another task of that partition has a permit, or
    gets one while the last one is on its way back."""
    random = script.random
    while script.more():
        home, away = random.sample(range(script.knobs.partitions), 2)
        owner, user, other = script.spawn(home), script.spawn(away), script.spawn(away)
        script.settle()
        export = script.export(owner, random.randint(1, 4), RegionKind.PRIVATE)
        script.settle()
        view = script.attach(user, export, 0, export.pages)
        killed = random.random() < 0.5
        between = killed and random.random() < 0.5
        permit = {"task": other, "made": next(script.numbers), "segment": export.segment}
        if not between:
            script.do(Op.GET, **permit)
            script.settle()
        point, terms = _LATE if killed else random.choice(_SLOW)
        set_failpoint(script, owner, "failpoint_set", point, terms)
        script.do(
            Op.LOAD,
            task=user,
            page=random.randrange(export.pages),
            attachment=view.attachment,
            word=random.randrange(WORDS),
        )
        if killed:
            script.soon(20 * MILLISECOND)
            script.do(Op.KILL, task=user)
            if between:
                script.soon(8 * MILLISECOND)
                script.do(Op.GET, **permit)
        script.now_ns += (700 if "600" in terms else 300) * MILLISECOND
        set_failpoint(script, owner, "failpoint_clear", point)


def _copy(script: Script, view: Import) -> None:
    script.do(
        Op.CALL,
        task=view.task,
        permit=view.permit,
        into=view.permit,
        detail="xpmem_copy",
        values={"src_offset": 0, "dst_offset": 8, "size": script.random.choice((8, 100))},
    )


def _pair(script: Script, kind: RegionKind = RegionKind.PRIVATE) -> tuple[Export, Import]:
    """Somebody's export, and an importer of it on another partition."""
    home, away = script.random.sample(range(script.knobs.partitions), 2)
    owner, user = script.spawn(home), script.spawn(away)
    script.settle()
    export = script.export(owner, script.random.randint(1, 4), kind)
    script.settle()
    view = script.attach(user, export, 0, export.pages)
    script.settle()
    return export, view


def set_failpoint(script: Script, task: int, call: str, point: str, terms: str = "") -> None:
    """Set or clear a failpoint on the partition of a task."""
    values = {"point": point, "terms": terms} if terms else {"point": point}
    script.do(Op.CALL, task=task, detail=call, values=values)
