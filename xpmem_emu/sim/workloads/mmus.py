"""Devices with translations of their own on exporters and importers, while pages move and go."""

from dataclasses import replace

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Area, Import, Script, where
from xpmem_emu.units import MILLISECOND

_DEVICES = ("gru", "guest", "mirror")
_KINDS = (RegionKind.PRIVATE, RegionKind.PRIVATE, RegionKind.SHARED, RegionKind.FILE)
_MOVES = (
    *(Op.REMAP, Op.DONTNEED, Op.MIGRATE, Op.PAGEOUT, Op.PROTECT, Op.PROTECT) * 2,
    *(Op.MUNMAP, Op.WRITEBACK, Op.RECLAIM),
)
_HASTE_NS = 3 * MILLISECOND


def mmus(script: Script) -> None:
    """Whoever has memory has devices for it, too, and uses them more than its processor."""
    random = script.random
    owners = [script.spawn(script.partition()) for _ in range(random.randint(1, 2))]
    users = [script.spawn(script.partition()) for _ in range(random.randint(2, 4))]
    _use(script, owners, users)


def mmus_alone(script: Script) -> None:
    """The same where nobody imports anything."""
    _use(script, [script.spawn(script.partition()) for _ in range(script.random.randint(2, 4))], [])


def _use(script: Script, owners: list[int], users: list[int]) -> None:
    random = script.random
    script.settle()
    exports = script.exports(owners, _KINDS)
    places: list[Area] = [*exports, *script.imports(users, exports)]
    equipped = [(place, _equip(script, place)) for place in places]
    script.settle()
    while script.more():
        at = random.randrange(len(equipped))
        place, kinds = equipped[at]
        roll = random.random()
        if roll < 0.5:
            _access(script, place, random.choice(kinds))
        elif roll < 0.6:
            script.touch(place, random.choice((Op.LOAD, Op.STORE)))
        elif roll < 0.8:
            _move(script, random.choice(exports))
            script.soon(_HASTE_NS // 6)
            _access(script, random.choice(places[: len(exports)]), random.choice(_DEVICES))
        elif roll < 0.93 and isinstance(place, Import):
            equipped[at] = _again(script, place)
        else:
            _equip_anew(script, place, random.choice(kinds))
        if random.random() < 0.6:
            script.soon(_HASTE_NS)  # within a walk, and within a recall
        else:
            script.pause()


def _equip(script: Script, place: Area) -> list[str]:
    kinds = script.random.sample(_DEVICES, script.random.randint(1, 3))
    for kind in kinds:
        _attach(script, place, kind)
    return kinds


def _attach(script: Script, place: Area, kind: str) -> None:
    flags = script.random.randrange(2)  # whether a guest holds references
    script.do(Op.DEVICE, task=place.task, detail=kind, flags=flags, **where(place))


def _equip_anew(script: Script, place: Area, kind: str) -> None:
    """Gone and there again at once: a GRU context gets another number, a guest no old slot."""
    script.do(Op.UNDEVICE, task=place.task, detail=kind)
    script.soon(MILLISECOND)
    _attach(script, place, kind)


def _access(script: Script, place: Area, kind: str) -> None:
    script.touch(place, script.random.choice((Op.LOAD, Op.STORE)), kind)


def _move(script: Script, export: Area) -> None:
    random = script.random
    op, page = random.choice(_MOVES), random.randrange(export.pages)
    pages = random.randint(1, export.pages - page)
    detail = random.choice(("none", "read", "read", "write")) if op is Op.PROTECT else ""
    script.do(op, task=export.task, page=page, pages=pages, detail=detail, **where(export))


def _again(script: Script, old: Import) -> tuple[Area, list[str]]:
    """Another attachment takes the old one's place, with devices for it."""
    script.do(Op.DETACH, task=old.task, attachment=old.attachment)
    new = replace(old, attachment=script.number())
    script.do(
        Op.ATTACH,
        task=new.task,
        made=new.attachment,
        permit=new.permit,
        page=new.first,
        pages=new.pages,
    )
    script.settle()
    for kind in _DEVICES:
        script.do(Op.UNDEVICE, task=old.task, detail=kind)
    script.settle()
    return new, _equip(script, new)
