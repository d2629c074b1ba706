"""Files: mapped shared and private, exported, written by call, cut off, written back, swapped."""

from xpmem_emu.kernel.calls import MAP_FIXED, MAP_PRIVATE, MAP_SHARED
from xpmem_emu.sim.operations.registry import planned_address
from xpmem_emu.sim.plan import Op, Operation, RegionKind
from xpmem_emu.sim.workloads.script import Area, Export, Import, Script, where
from xpmem_emu.units import PAGE_SIZE

_MOVES = (
    Op.WRITEBACK,
    Op.PAGEOUT,
    Op.RECLAIM,
    Op.PUNCH,
    Op.DONTNEED,
    Op.TRUNCATE,
    Op.MIGRATE,
    Op.PROTECT,
)
_SIZES = (0, 0, 1, 7, 100, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE)


def files(script: Script) -> None:
    """Tasks of one partition map the same file shared and private, others import it."""
    random = script.random
    while script.more():
        home = script.partition()
        owner, other = script.spawn(home), script.spawn(home)
        user = script.spawn(script.partition())
        script.settle()
        export = script.export(owner, random.randint(1, 4), RegionKind.FILE)
        script.settle()
        places = [
            _map(script, other, export, RegionKind.FILE),
            _map(script, other, export, RegionKind.COPY),
        ]
        script.settle()
        copy = script.number()
        script.do(Op.MAKE, task=other, made=copy, region=places[1].region, pages=export.pages)
        views = [
            script.attach(user, each, 0, each.pages)
            for each in (export, Export(other, places[1].region, copy, export.pages))
        ]
        script.settle()
        name = f"g{script.number()}"
        for _ in range(random.randint(8, 20)):
            _use(script, export, [export, *places], views)
            _write(script, owner, name)
            script.pause()


def _map(script: Script, task: int, export: Export, kind: RegionKind) -> Export:
    """Another mapping of the file of `export`."""
    place = Export(task, script.number(), 0, export.pages)
    script.do(
        Op.MMAP, task=task, made=place.region, region=export.region, pages=export.pages, detail=kind
    )
    return place


def _use(script: Script, export: Export, places: list[Export], views: list[Import]) -> None:
    random = script.random
    page, pages = script.part(export)
    roll = random.random()
    if roll < 0.5:
        anywhere: list[Area] = [*places, *views]
        script.touch(random.choice(anywhere), random.choice((Op.LOAD, Op.STORE)))
    elif roll < 0.7:
        script.do(
            random.choice((Op.PWRITE, Op.PREAD)),
            task=export.task,
            page=page,
            word=random.randrange(3),
            **where(export),
        )
    else:
        script.do(
            random.choice(_MOVES),
            task=export.task,
            region=export.region,
            page=page,
            pages=pages,
            detail=random.choice(("read", "write", "write")),
        )


def _write(script: Script, task: int, name: str) -> None:
    """Bytes of any length at any place of a file that is no multiple of pages, empty ones and
    beyond its end as well, and mappings of it."""
    random = script.random
    size, offset = random.choice(_SIZES), random.choice(_SIZES) + random.choice((0, 1, PAGE_SIZE))
    place = planned_address(Operation(0, Op.MMAP, made=script.number()))
    flags = MAP_FIXED | random.choice((MAP_SHARED, MAP_PRIVATE))
    call, values = random.choice(
        (
            ("creat", {"size": size}),
            ("creat", {"size": size}),
            ("pwrite", {"offset": offset}),
            ("pwrite", {"offset": offset}),
            ("pread", {"offset": offset, "size": size}),
            ("truncate", {"size": offset}),
            ("writeback", {}),
            ("unlink", {}),
            ("mmap", {"length": 2 * PAGE_SIZE, "flags": flags, "address": place}),
        )
    )
    script.do(
        Op.CALL,
        task=task,
        made=script.number(),
        detail=call,
        size=size,
        values={"file": name, **values},
    )
    if call == "mmap":
        script.settle()
        for reading in ("store", "load"):
            at = {"address": place + random.randrange(2 * PAGE_SIZE)}
            at |= {"size": random.choice((1, 8))} if reading == "load" else {}
            script.do(Op.CALL, task=task, made=script.number(), detail=reading, size=8, values=at)
