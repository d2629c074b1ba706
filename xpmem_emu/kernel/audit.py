"""Counting what is in use: the same counts before and after, or something leaked (S3, S10).

Every count is zero on an idle kernel without tasks, except those that describe the machine.
Counts that must agree with each other are compared here; a difference is a KernelBug.
"""

from typing import TYPE_CHECKING

from xpmem_emu.errors import KernelBug

if TYPE_CHECKING:
    from xpmem_emu.kernel.kernel import Kernel


def audit(kernel: "Kernel") -> dict[str, int]:
    """The counts. Raises KernelBug when pins and PFN tables disagree."""
    xpmem = kernel.xpmem
    segments = list(xpmem.exporter.segments.values())
    in_tables = sum(segment.table.pages for segment in segments)
    in_recalls = sum(
        len(recall.taken.frames) for segment in segments for recall in segment.recalls
    )
    pins = kernel.memory.frames.pinned
    in_flight = sum(len(segment.requests) for segment in segments)
    if pins != in_tables + in_recalls and not in_flight:
        raise KernelBug(
            f"{pins} pins, but {in_tables} pages in PFN tables and {in_recalls} in recalls (S3)"
        )
    imports = xpmem.imports.all()
    counts = {
        "tasks": len(kernel.tasks),
        "groups": len(xpmem.device.groups),
        "segments": len(segments),
        "grants": len(xpmem.exporter.grants),
        "imports": len(imports),
        "permits": sum(len(imported.permits) for imported in imports),
        "attachments": sum(len(imported.attachments) for imported in imports),
        "imported_pages": sum(imported.table.pages for imported in imports),
        "inflight_faults": xpmem.faults.inflight,
        "far_accesses": xpmem.far.under_way,
        "evictions": sum(len(imported.evictions) for imported in imports),
        "page_requests": in_flight,
        "recalls": sum(len(segment.recalls) for segment in segments),
        "pins": pins,
        "quarantined": sum(xpmem.fence.quarantined().values()),
        "calls": kernel.calls_pending,
    }
    memory = {f"mm_{key}": value for key, value in kernel.memory.audit().items()}
    xpc = {f"xpc_{key}": value for key, value in kernel.xpc.audit().items()}
    return counts | memory | xpc
