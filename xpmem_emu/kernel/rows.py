"""What can be looked at, as rows: one function per table, all read-only.

Keys are the field's names; ids, addresses and sizes are numbers. Every row says `partid`, so
that rows of several partitions can stand in one table.
"""

from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.kernel.tasks import Task
from xpmem_emu.mm import pte
from xpmem_emu.mm.vma_ops import FarOps
from xpmem_emu.mmu.secondary import devices_of
from xpmem_emu.units import PAGE_SHIFT
from xpmem_emu.xpc.frame import ChannelNumber
from xpmem_emu.xpc.reasons import Reason

RowCell = int | str | bool | list[str] | dict[str, int] | list[dict[str, int | str]]
Row = dict[str, RowCell | list["Row"] | dict[str, "Row"]]


def segment_rows(kernel: Kernel) -> list[Row]:
    """Segments made here: who holds how much of them."""
    return [
        {
            "segid": segment.segid,
            "partid": kernel.partid,
            "pid": segment.group.tgid,
            "vaddr": segment.vaddr,
            "size": segment.size,
            "mode": f"{segment.mode:04o}",
            "name": segment.name,
            "state": segment.life.value,
            "sequence": segment.sequence,
            "pinned_pages": segment.table.pages,
            "holders": {f"p{holder}": held for holder, held in segment.table.holders().items()},
            "permits": len(segment.grants),
            "recalls": len(segment.recalls),
        }
        for segment in kernel.xpmem.exporter.segments.values()
    ]


def permits(kernel: Kernel) -> list[Row]:
    """Permits that tasks of this partition hold."""
    return [
        {
            "apid": permit.apid,
            "partid": kernel.partid,
            "pid": permit.group.tgid,
            "segid": permit.imported.segid,
            "home": permit.imported.home,
            "flags": permit.flags,
            "size": permit.imported.size,
            "state": permit.imported.gone or permit.life.value,
            "attachments": len(permit.attachments),
        }
        for group in kernel.xpmem.device.groups.values()
        for permit in group.permits.values()
    ]


def attachments(kernel: Kernel) -> list[Row]:
    """Attachments of tasks of this partition."""
    return [
        {
            "segid": imported.segid,
            "apid": attachment.permit.apid,
            "partid": kernel.partid,
            "pid": attachment.permit.group.tgid,
            "address": attachment.address,
            "size": attachment.pages[1] << PAGE_SHIFT,
            "offset": attachment.pages[0] << PAGE_SHIFT,
            "home": imported.home,
            "access": attachment.access,
            "held_pages": len(imported.table.known(*attachment.pages)),
            "sequence": imported.sequence,
            "state": imported.gone or attachment.life.value,
            "last_failure": imported.last_failure,
        }
        for imported in kernel.xpmem.imports.all()
        for attachment in imported.attachments.values()
    ]


def faults(kernel: Kernel) -> list[Row]:
    """Faults in flight."""
    return [
        {
            "fault": fault.number,
            "partid": kernel.partid,
            "segid": imported.segid,
            "home": imported.home,
            "page": fault.pages[0],
            "count": fault.pages[1],
            "state": "valid" if fault.valid else "invalid",
            "deadline_ns": fault.until_ns,
        }
        for imported in kernel.xpmem.imports.all()
        for fault in imported.inflight
    ]


def partition_rows(kernel: Kernel) -> list[Row]:
    """The peers, as this partition sees them."""
    return [
        {
            "partid": kernel.partid,
            "peer": peer.partid,
            "state": peer.state.name,
            "reason": peer.reason.name if peer.reason is not Reason.SUCCESS else "",
            "place": peer.place if peer.reason is not Reason.SUCCESS else "",
            "incarnation": peer.remote.seen,
            "domain": peer.remote.page.domain if peer.remote.page else "",
            "direct_memory": kernel.memory.physical.has_window(peer.partid),
            "retransmissions": peer.counters.retransmissions,
            "stale_frames": peer.counters.stale_frames,
        }
        for peer in kernel.xpc.partitions.values()
    ]


def channels(kernel: Kernel) -> list[Row]:
    """The channels of every session."""
    return [
        {
            "partid": kernel.partid,
            "peer": peer.partid,
            "channel": ChannelNumber(channel.number).name,
            "state": channel.state.name,
            "slots_used": channel.opening.sender.in_use if channel.opening else 0,
            "waiting": channel.opening.sender.waiting if channel.opening else 0,
        }
        for peer in kernel.xpc.partitions.values()
        if peer.session is not None
        for channel in peer.session.channels
    ]


def pins(kernel: Kernel) -> list[Row]:
    """Pages pinned by XPMEM per exporting task, and frames quarantined per lost session."""
    pinned: list[Row] = [
        {
            "partid": kernel.partid,
            "pid": group.tgid,
            "pinned_pages": group.pinned,
            "quarantined_frames": 0,
            "importer": "",
        }
        for group in kernel.xpmem.device.groups.values()
        if group.segments or group.pinned
    ]
    quarantined: list[Row] = [
        {
            "partid": kernel.partid,
            "pid": 0,
            "pinned_pages": 0,
            "quarantined_frames": frames,
            "importer": f"p{importer} session {incarnation:#x}",
        }
        for (importer, incarnation), frames in kernel.xpmem.fence.quarantined().items()
    ]
    return pinned + quarantined


def tasks(kernel: Kernel) -> list[Row]:
    """The tasks."""
    return [
        {
            "pid": task.pid,
            "partid": kernel.partid,
            "parent": task.parent,
            "name": task.name,
            "uid": task.uid,
            "state": task.state.value,
            "calls": len(task.threads),
            "areas": len(task.mm.vmas),
            "resident_pages": task.mm.rss,
            "last_signal": task.last_signal.describe() if task.last_signal else "",
        }
        for task in kernel.tasks
    ]


def file_rows(kernel: Kernel) -> list[Row]:
    """The files of this partition's simulated disk."""
    return [
        {
            "name": name,
            "partid": kernel.partid,
            "size": inode.size,
            "cached_pages": len(inode.cached_pages()),
            "dirty_pages": int(inode.dirty.sum()),
            "mappings": len(kernel.memory.owners[inode.id].vmas),
        }
        for name, inode in kernel.memory.files.by_name.items()
    ]


def device_rows(kernel: Kernel) -> list[Row]:
    """The secondary MMUs of tasks of this partition."""
    return [
        {
            "partid": kernel.partid,
            "pid": task.pid,
            "device": device.kind,
            "about": device.about(),
            "translations": len(device.held()),
            "misses": device.misses,
            "waits": device.waits,
            "retries": device.retries,
        }
        for task in kernel.tasks
        for device in devices_of(task.mm)
    ]


def status_row(kernel: Kernel) -> Row:
    """The partition in one mapping."""
    frames = kernel.memory.frames
    return {
        "partid": kernel.partid,
        "boot": kernel.boot,
        "image": kernel.image.name,
        "domain": kernel.image.domain,
        "uptime_ns": kernel.scheduler.now_ns - (kernel.booted_ns or 0),
        "peers": {
            str(row["peer"]): {"state": row["state"], "reason": row["reason"]}
            for row in partition_rows(kernel)
        },
        "tasks": len(kernel.tasks),
        "frames_total": frames.total,
        "frames_used": frames.in_use,
        "pinned_pages": frames.pinned,
        "pinned_total": kernel.xpmem.recalls.pinned_total,
        "unpinned_total": kernel.xpmem.recalls.unpinned_total,
        "quarantined_frames": sum(kernel.xpmem.fence.quarantined().values()),
        "trace_events": kernel.tracer.count,
        "counters": kernel.xpc.counters,
    }


def walk(task: Task, address: int) -> Row:
    """The page-table walk for `address`, level by level, and the area around it."""
    vpn = address >> PAGE_SHIFT
    vma = task.mm.vmas.find(address)
    entry = task.mm.page_table.walk(vpn)
    far = vma is not None and isinstance(vma.ops, FarOps)
    levels = task.mm.page_table.levels(vpn)
    names = ("pgd", "pud", "pmd")
    return {
        "pid": task.pid,
        "address": address,
        "area": str(vma) if vma else "none: an access is SIGSEGV",
        "levels": [
            {"level": name, "index": slot, "present": "yes" if there else "no"}
            for name, (slot, there) in zip(names, levels, strict=False)
        ],
        "pte_index": vpn & 511,
        "pte": entry,
        "entry": "none: every access is a message" if far else pte.pte_text(entry),
    }
