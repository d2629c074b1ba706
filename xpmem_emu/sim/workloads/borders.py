"""Accesses that begin or end anywhere, where areas lie side by side and neighbours die."""

from dataclasses import dataclass

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Export, Import, Script
from xpmem_emu.units import PAGE_SIZE

_WORD = 8
_DEATHS = (Op.REMOVE, Op.REMOVE, Op.DETACH, Op.CLOSE, Op.EXIT, Op.KILL, Op.MUNMAP)


@dataclass(frozen=True, slots=True)
class _Lot:
    """An attachment and where it lies."""

    view: Import
    place: int
    slot: int


def borders(script: Script) -> None:
    """A task attaches segments of different exporters so that one begins where the other ends,
    reaches across, and goes on when neighbours are gone or replaced."""
    random = script.random
    while script.more():
        user = script.spawn(script.partition())
        owners = [script.spawn(script.partition()) for _ in range(random.randint(2, 3))]
        script.settle()
        exports = [
            script.export(owner, random.randint(1, 3), RegionKind.PRIVATE) for owner in owners
        ]
        script.settle()
        row = _row(script, user, exports)
        script.settle()
        for _ in range(random.randint(2, 5)):
            _reach(script, row)
            script.pause()
        for _ in range(random.randint(1, 2)):
            _die(script, random.choice(row).view)
            script.pause()
            for _ in range(random.randint(2, 5)):
                _reach(script, row)
            script.settle()
        if random.random() < 0.6:
            _replace(script, random.choice(row))


def _row(script: Script, user: int, exports: list[Export]) -> list[_Lot]:
    """Attachments one behind the other."""
    place, slot, row = script.number(), 0, []
    for export in exports:
        view = script.attach(user, export, 0, export.pages, beside=place, slot=slot)
        row.append(_Lot(view, place, slot))
        slot += export.pages
    return row


def _reach(script: Script, row: list[_Lot]) -> None:
    """Unaligned bytes: up to the end of an attachment, across it, or in the middle of one. A store
    covers tracked words whole or not at all."""
    random = script.random
    index = random.randrange(len(row))
    view, op = row[index].view, random.choice((Op.LOAD, Op.STORE))
    page = random.randrange(view.pages)
    last = index + 1 == len(row) and page + 1 == view.pages
    offset = PAGE_SIZE - _WORD - random.choice((0, 1, 3, 5, 100))
    ends = [PAGE_SIZE, PAGE_SIZE] if last else [PAGE_SIZE, PAGE_SIZE + _WORD, PAGE_SIZE + 37]
    if random.random() < 0.3:
        offset, ends = 2 * _WORD + random.randrange(64), [PAGE_SIZE - _WORD - 1, PAGE_SIZE]
    behind = 0 if index + 1 == len(row) else row[index + 1].view.attachment
    script.do(
        op,
        task=view.task,
        attachment=view.attachment,
        behind=behind,
        page=page,
        offset=offset,
        size=random.choice(ends) - offset,
    )


def _die(script: Script, view: Import) -> None:
    """A segment, its exporter, or the attachment itself goes."""
    op, export = script.random.choice(_DEATHS), view.export
    if op is Op.DETACH:
        script.do(op, task=view.task, attachment=view.attachment)
    else:
        script.do(
            op, task=export.task, segment=export.segment, region=export.region, pages=export.pages
        )


def _replace(script: Script, lot: _Lot) -> None:
    """The tail of an attachment is cut off and private memory put there; then the head goes."""
    random, view = script.random, lot.view
    kept = random.randrange(view.pages)
    tail = {
        "task": view.task,
        "attachment": view.attachment,
        "page": kept,
        "pages": view.pages - kept,
    }
    own = Export(view.task, script.number(), 0, view.pages - kept)
    script.do(Op.CALL, **tail, detail="mprotect", values={"prot": 1})
    script.settle()
    script.do(Op.CALL, **tail, detail="munmap")
    script.settle()
    script.do(
        Op.MMAP,
        task=own.task,
        made=own.region,
        pages=own.pages,
        detail=RegionKind.PRIVATE,
        beside=lot.place,
        slot=lot.slot + kept,
    )
    script.settle()
    script.touch(own, Op.STORE)
    script.do(
        random.choice((Op.DETACH, Op.RELEASE)),
        task=view.task,
        attachment=view.attachment,
        permit=view.permit,
    )
    script.settle()
    for _ in range(3):
        script.touch(own, random.choice((Op.LOAD, Op.STORE)))
    script.settle()
