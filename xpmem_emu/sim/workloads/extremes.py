"""Arguments that are typed and extreme: whatever can be said must be answered, by an errno or by
doing it, and nobody else may notice."""

from typing import Any

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Export, Import, Script
from xpmem_emu.units import PAGE_SIZE, TASK_SIZE

_TOP = 1 << 64
_NUMBERS = (
    0,
    1,
    7,
    PAGE_SIZE - 1,
    PAGE_SIZE,
    PAGE_SIZE + 1,
    1 << 20,
    1 << 31,
    (1 << 32) - 1,
    1 << 36,
    1 << 38 | 5,
    (1 << 40) - 1,
    TASK_SIZE - PAGE_SIZE,
    TASK_SIZE,
    TASK_SIZE + PAGE_SIZE,
    1 << 47,
    (1 << 63) - PAGE_SIZE,
    (1 << 63) - 1,
    1 << 63,
    _TOP - (1 << 47),
    _TOP - 2 * PAGE_SIZE,
    _TOP - PAGE_SIZE,
    _TOP - 2,
    _TOP - 1,
    -1,
    -PAGE_SIZE,
    -(1 << 63),
)
_CALLS: dict[str, tuple[str, ...]] = {
    "xpmem_make": ("vaddr", "size"),
    "xpmem_get": ("segid", "flags"),
    "xpmem_attach": ("offset", "size", "vaddr"),
    "xpmem_detach": ("vaddr",),
    "xpmem_release": ("apid",),
    "xpmem_remove": ("segid",),
    "xpmem_copy": ("src_offset", "dst_offset", "size"),
    "xpmem_tunable": ("value",),
    "mmap": ("length", "address", "offset"),
    "munmap": ("address", "length"),
    "mprotect": ("address", "length", "prot"),
    "madvise": ("address", "length", "advice"),
    "mremap": ("address", "old_length", "new_length", "flags", "new_address"),
    "load": ("address",),
    "store": ("address",),
    "amo": ("address", "operand"),
    "zap_page_range": ("address", "length"),
    "migrate": ("address", "length"),
    "creat": ("size",),
    "pwrite": ("offset",),
    "pread": ("offset",),
    "truncate": ("size",),
    "reclaim": ("pages",),
    "setuid": ("uid",),
    "kill": ("signal",),
    "exit": ("status",),
    "strain": ("value",),
    "shutdown": (),
    "poison": ("frame",),
    "pagetable": ("address",),
}
_RARELY = ("kill", "exit", "setuid", "shutdown")
_FIXED: dict[str, dict[str, Any]] = {
    "xpmem_tunable": {"name": "faults_after"},
    "creat": {"file": "x"},
    "pwrite": {"file": "x"},
    "pread": {"file": "x", "size": PAGE_SIZE},
    "truncate": {"file": "x"},
    "load": {"size": 64},
    "strain": {"bound": "number"},
    "poison": {"home": 1},
    "amo": {"operation": "add"},
}
_UIDS = (0, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, _TOP - 1)
_COPY_MAX = 1 << 30
_GIANT = 1 << 41
_GIANT_COPIES = (1 << 30, 1 << 36, 1 << 40, (1 << 40) + 1)


def extremes(script: Script) -> None:
    """Tasks that have only scratch memory, and make every call with every argument."""
    random = script.random
    while script.more():
        owner = script.spawn(script.partition(), random.choice(_UIDS))
        user = script.spawn(script.partition())
        script.settle()
        export = script.export(owner, random.randint(1, 3), RegionKind.SCRATCH)
        script.settle()
        view = script.attach(user, export, 0, export.pages)
        script.settle()
        other = script.attach(user, export, 0, export.pages)
        script.settle()
        for _ in range(random.randint(8, 24)):
            _say(script, export, view, other)
            script.pause()
        if random.random() < 0.3:
            _copy_giants(script, export, user)


def _copy_giants(script: Script, export: Export, user: int) -> None:
    """A segment of two TiB, of which only the first pages are there, copied to itself."""
    segment, source, target = (script.number() for _ in range(3))
    script.do(
        Op.MAKE, task=export.task, made=segment, region=export.region, pages=_GIANT // PAGE_SIZE
    )
    script.settle()
    for permit in (source, target):
        script.do(Op.GET, task=user, made=permit, segment=segment)
    script.settle()
    for _ in range(script.random.randint(1, 3)):
        script.do(
            Op.CALL,
            task=user,
            permit=source,
            into=target,
            detail="xpmem_copy",
            values={
                "src_offset": 0,
                "dst_offset": script.random.choice((0, 8)),
                "size": script.random.choice(_GIANT_COPIES),
            },
        )
        script.pause()


def _say(script: Script, export: Export, view: Import, other: Import) -> None:
    random = script.random
    call = random.choice(list(_CALLS))
    if call in _RARELY and random.random() < 0.7:
        return
    names = _CALLS[call]
    said = random.sample(names, random.randint(min(1, len(names)), len(names)))
    values: dict[str, Any] = {name: random.choice(_NUMBERS) for name in said}
    if call == "poison":
        values["frame"] = random.choice([n for n in _NUMBERS if n > 1 << 32])
    if call == "xpmem_copy":
        values["size"] = min(values.get("size", 1), _COPY_MAX)
    values |= _FIXED.get(call, {})
    mine = random.random() < 0.5
    task = export.task if mine else view.task
    script.do(
        Op.CALL,
        task=task,
        made=script.number(),
        segment=export.segment,
        detail=call,
        region=export.region if mine else 0,
        attachment=0 if mine else view.attachment,
        permit=view.permit,
        into=other.permit,
        pages=export.pages,
        values=values,
        size=random.choice((0, 0, 64)),
    )
