"""The audit of cross-partition memory: both ends of every relation, and counts against lists.

Pure readers, called whenever all threads sleep: what is compared holds at every await. A
difference is a KernelBug that names both sides.

    exporter   group <-> segment <-> grant;  PFN table = pins = the exporter's own entries (S4);
               a page is known iff somebody holds it, and holders have grants and a live session
    importer   group <-> permit <-> imported <-> attachment <-> areas;  every foreign entry is one
               that the home told us (S1);  at most one fault in flight for a page
    fence      quarantined frames = those of lost sessions, and poisoned ones
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from xpmem_emu.errors import KernelBug
from xpmem_emu.mm import pte
from xpmem_emu.mm.audit import compare
from xpmem_emu.mm.extents import Frames, numbers
from xpmem_emu.mm.radix import PAGE_NUMBER_BITS
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpmem.extents import overlaps, subtract
from xpmem_emu.xpmem.objects import Attachment, Severed

if TYPE_CHECKING:
    from xpmem_emu.xpmem.module import Xpmem
    from xpmem_emu.xpmem.objects import ImportedSegment, Segment, ThreadGroup
    from xpmem_emu.xpmem.pfn_table import PfnTable
    from xpmem_emu.xpmem.rpc import HomeRpc
    from xpmem_emu.xpmem.services import Services


def check_xpmem(xpmem: "Xpmem", services: "Services") -> None:
    """Raises KernelBug with the first difference."""
    groups = list(xpmem.device._notifiers)
    for group in groups:
        _check_group(xpmem, group)
    segments = list(xpmem.exporter.segments.values())
    _same("segments", segments, [s for group in groups for s in group.segments.values()])
    _same(
        "grants",
        xpmem.exporter.grants.values(),
        [grant for segment in segments for grant in segment.grants.values()],
    )
    for segment in segments:
        _check_segment(segment, services)
    _check_pins(segments, services)
    imports = xpmem.imports.all()
    _same(
        "permits",
        [permit for imported in imports for permit in imported.permits],
        [permit for group in groups for permit in group.permits.values()],
    )
    for imported in imports:
        _check_imported(imported, xpmem.homes)
    _check_mappings(services)
    in_flight = sum(len(imported.inflight) for imported in imports)
    _equal("faults in flight", in_flight, xpmem.faults.inflight)
    _check_quarantine(xpmem, services)


# -- the exporter's side ----------------------------------------------------------------------


def _check_group(xpmem: "Xpmem", group: "ThreadGroup") -> None:
    found = xpmem.device.groups.get(group.tgid)
    if (found is group) != group.live:
        raise KernelBug(f"audit: group {group.tgid} is {group.life.value}, found: {found}")
    if xpmem.device._notifiers[group] not in group.mm.notifiers.registered:
        raise KernelBug(f"audit: group {group.tgid} is not told of what happens to its memory")
    held = [segment.table.pages for segment in group.segments.values()]
    held += [len(r.taken.frames) for s in group.segments.values() for r in s.recalls]
    _equal(f"pages of group {group.tgid} that are pinned", sum(held), group.pinned)
    places = [each.pages[1] for each in group.requests]
    _equal(f"places for pages of group {group.tgid} being pinned", sum(places), group.pinning)
    _same(
        f"recalls of group {group.tgid}",
        group.recalls,
        [recall for segment in group.segments.values() for recall in segment.recalls],
    )
    for segment in group.segments.values():
        if segment.group is not group:
            raise KernelBug(f"audit: segment {segment.segid:#x} is of two groups")


def _check_segment(segment: "Segment", services: "Services") -> None:
    name = f"segment {segment.segid:#x}"
    known = segment.table.known(0, segment.pages)
    _equal(f"pages known of {name}", len(known), segment.table.pages)
    for recall in segment.recalls:
        again = segment.table.known(*recall.pages)
        if len(again):
            raise KernelBug(f"audit: page {again[0]} of {name} is recalled, and known again")
        for holder in recall.taken.holders:
            if services.xpc.incarnation(holder) is None:
                raise KernelBug(f"audit: {name} is recalled from p{holder}, which is lost")
    held = np.zeros(0, dtype=np.int64)
    importers = {grant.importer for grant in segment.grants.values()}
    for holder in segment.table.holders():
        if holder not in importers:
            raise KernelBug(f"audit: p{holder} holds pages of {name} without a permit")
        for first, count in segment.table.held_by(holder, 0, segment.pages):
            held = np.concatenate((held, numbers(first, count)))
    compare(f"page of {name} that is held, at place", known, np.unique(held))
    for importer in importers - {services.partid}:
        if services.xpc.incarnation(importer) is None:
            raise KernelBug(f"audit: p{importer} is lost and has permits of {name}")
    _check_rights(segment.table, name)
    _check_frames(segment, name)


def _check_rights(table: "PfnTable", name: str) -> None:
    """What is not known has no rights: they would be taken for those of what comes next."""
    for base, leaf, lo, hi in table.radix.leaves(0, 1 << PAGE_NUMBER_BITS):
        odd = np.flatnonzero((leaf.frames[lo:hi] == 0) & (leaf.flags[lo:hi] != 0))
        if len(odd):
            raise KernelBug(
                f"audit: page {base + lo + int(odd[0])} of {name} is unknown, with rights"
            )


def _check_frames(segment: "Segment", name: str) -> None:
    """S4: what others were told is where the exporter's own entries lead."""
    mm, base = segment.group.mm, segment.first_vpn
    for page, frame, count, _ in segment.table.extents(0, segment.pages):
        ptes = mm.page_table.read_range(base + page, count)
        own = np.where(pte.counted(ptes), pte.frame_field(ptes) & pte.LOCAL_MASK, 0)
        compare(f"frame of {name} from page {page} on, at", numbers(frame, count), own)


def _check_pins(segments: "list[Segment]", services: "Services") -> None:
    """S3, frame by frame: pinned by a PFN table, by a recall, or for a request under way."""
    frames = services.memory.frames
    expected: Frames = np.zeros(frames.total, dtype=np.int64)
    for segment in segments:
        for _, frame, count, _ in segment.table.extents(0, segment.pages):
            expected[frame : frame + count] += 1
        for recall in segment.recalls:
            np.add.at(expected, recall.taken.frames, 1)
    if any(segment.requests for segment in segments):
        expected = np.maximum(expected, frames.pins)
    compare("pins of frame (S3)", expected, frames.pins)


def _check_quarantine(xpmem: "Xpmem", services: "Services") -> None:
    frames = services.memory.frames
    expected: Frames = np.zeros(frames.total, dtype=np.int64)
    for exposed in (each for retired in xpmem.fence._quarantine.values() for each in retired):
        np.add.at(expected, exposed.frames, 1)
    expected[sorted(frames.bad)] += 1
    compare("quarantine of frame", expected, frames.quarantined)


# -- the importer's side ----------------------------------------------------------------------


def _check_imported(imported: "ImportedSegment", homes: "HomeRpc") -> None:
    name = f"segment {imported.segid:#x} of p{imported.home}"
    # What every access relies on, which asks no more than `gone`.
    if not imported.gone and not homes.reachable(imported.home, imported.incarnation):
        raise KernelBug(f"audit: {name} is not gone, and its session is over")
    faults = sorted(fault.pages for fault in imported.inflight)
    for one, other in pairwise(faults):
        if overlaps(one, other):
            raise KernelBug(f"audit: two faults in flight for pages {one} and {other} of {name}")
    if imported.gone and imported.table.pages:
        raise KernelBug(f"audit: {name} is gone, and {imported.table.pages} pages of it are known")
    _check_rights(imported.table, name)
    shown = [attachment.pages for attachment in imported.attachments.values()]
    known = [(int(page), 1) for page in imported.table.known(0, imported.size >> PAGE_SHIFT)]
    kept = subtract(known, shown)
    if kept:
        raise KernelBug(f"audit: pages {kept} of {name} are kept, and no attachment shows them")
    listed = [a for permit in imported.permits for a in permit.attachments if a.live and a.address]
    _same(f"attachments of {name}", imported.attachments.values(), listed)
    for number, attachment in imported.attachments.items():
        if attachment.number != number or not attachment.live:
            raise KernelBug(f"audit: attachment {number} of {name} is {attachment.life.value}")
        _check_entries(attachment, name)


def _check_mappings(services: "Services") -> None:
    """An area shows an attachment that its permit knows, at the place that it has; a piece that was
    severed from one, too, until it is unmapped, and until then the permit is known."""
    for mm in services.memory.address_spaces.values():
        for vma in mm.vmas:
            ops = vma.ops.attachment if isinstance(vma.ops, Severed) else vma.ops
            if not isinstance(ops, Attachment):
                continue
            if ops not in ops.permit.attachments:
                raise KernelBug(f"audit: area {vma} shows an attachment that no permit knows")
            if ops.permit.group.permits.get(ops.permit.apid) is not ops.permit:
                raise KernelBug(f"audit: area {vma} outlived permit {ops.permit.apid:#x}")
            beside = ops.address and not ops.address <= vma.start < vma.end <= ops.end
            if ops.mm is not mm or beside:
                raise KernelBug(f"audit: area {vma} shows an attachment of another place")


def _check_entries(attachment: Attachment, name: str) -> None:
    """S1, as far as one kernel can see: no entry but to a frame that we hold."""
    mm = attachment.mm
    for vma in mm.vmas.intersecting(attachment.address, attachment.end):
        if not attachment.owns(vma):
            continue
        vpns, ptes = mm.page_table.entries(vma.first, vma.pages)
        pages = vpns - attachment.vpn_of(0)
        told = np.zeros(len(pages), dtype=np.int64)
        for page, frame, count, _ in attachment.imported.table.extents(*attachment.pages):
            inside = (pages >= page) & (pages < page + count)
            told[inside] = frame + (pages[inside] - page)
        home = attachment.imported.home << pte.PARTID_SHIFT
        compare(f"frame of {name} mapped at {vma}, at", told + home, pte.frame_field(ptes))


def _same(what: str, one: Iterable[object], other: Iterable[object]) -> None:
    ours, theirs = list(one), list(other)
    if len(ours) != len(theirs) or {id(x) for x in ours} != {id(x) for x in theirs}:
        raise KernelBug(f"audit: {len(ours)} {what} in one list, {len(theirs)} others in the other")


def _equal(what: str, expected: int, actual: int) -> None:
    if expected != actual:
        raise KernelBug(f"audit: {what}: {actual}, should be {expected}")
