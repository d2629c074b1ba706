"""Mapping frames of a home partition into an attachment: special PTEs, only where none are.

Atomic, and only from frames that are good now: straight from a valid answer or from the table
of what this partition holds. The VMA is looked up again, because it may have changed while the
fault slept. An entry is writable when both sides may store there: this attachment, and the exporter
itself. What the exporter may only read can be a page of a file or one that it shares with a forked
child: a store must not get there (S5).
"""

from xpmem_emu.mm import pte
from xpmem_emu.mm.entries import insert_special
from xpmem_emu.mm.extents import numbers
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpc.messages import EXTENT_READ_ONLY, EXTENT_UNCACHED
from xpmem_emu.xpmem import events
from xpmem_emu.xpmem.attachment import MappedAttachment
from xpmem_emu.xpmem.extents import Extent, Range, intersect
from xpmem_emu.xpmem.services import Services


def install(
    services: Services, attachment: MappedAttachment, page: int, extents: list[Extent]
) -> int:
    """Note the frames of an answer for all attachments and map them around `page` of this one.

    Returns how many PTEs were installed.
    """
    table = attachment.imported.table
    for first, frame, count, flags in extents:
        table.record(first, numbers(frame, count), flags & (EXTENT_UNCACHED | EXTENT_READ_ONLY))
    return _map(services, attachment, page, extents)


def install_known(services: Services, attachment: MappedAttachment, page: int, batch: int) -> bool:
    """Map `page` and what else is known after it without asking anybody; False when `page` is
    not known here."""
    table = attachment.imported.table
    if not table.has(page):
        return False
    onward = intersect((page, batch), attachment.pages)
    assert onward is not None
    known = table.extents(*onward)
    _map(services, attachment, page, known)
    return True


def _map(services: Services, attachment: MappedAttachment, page: int, extents: list[Extent]) -> int:
    mm = attachment.mm
    vma = mm.vmas.find(attachment.vpn_of(page) << PAGE_SHIFT)
    if vma is None or vma.ops is not attachment:
        return 0
    mapped = (attachment.page_at(vma.start), (vma.end - vma.start) >> PAGE_SHIFT)
    base = attachment.imported.home << pte.PARTID_SHIFT
    installed = []
    ptes = 0
    for extent in extents:
        part = _clip(extent, mapped)
        if part is None:
            continue
        first, frame, count, flags = part
        gpfns = numbers(base + frame, count)
        access = pte.WRITE if vma.writable and not flags & EXTENT_READ_ONLY else 0
        access |= pte.UNCACHED if flags & EXTENT_UNCACHED else 0
        ptes += insert_special(vma, attachment.vpn_of(first), gpfns, access)
        installed.append(part)
    services.tracer.emit(
        events.PageInstall(
            segid=attachment.imported.segid, address=attachment.address, extents=installed
        )
    )
    return ptes


def _clip(extent: Extent, pages: Range) -> Extent | None:
    """The part of an extent that lies in `pages`."""
    first, frame, count, flags = extent
    part = intersect((first, count), pages)
    return part and (part[0], frame + part[0] - first, part[1], flags)
