"""Slips of memory, messages, threads and forks."""

from xpmem_emu.mm import fault, lifecycle
from xpmem_emu.mm.designs import Deferred
from xpmem_emu.mm.gather import Gather
from xpmem_emu.sched.scheduler import Scheduler
from xpmem_emu.sched.waiting import WaitQueue
from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpc.delivery import Opening
from xpmem_emu.xpc.slots import SendRing
from xpmem_emu.xpmem import recall
from xpmem_emu.xpmem.device import Device
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.firewall import Firewall
from xpmem_emu.xpmem.get import AttachCalls
from xpmem_emu.xpmem.recall import Recalls

child_keeps_rights = slip(
    lifecycle, "_copy_area", "ptes &= np.uint64(pte.without(pte.WRITE))", "pass"
)
cow_reuses_shared = slip(
    fault, "_write_protected", "allocator.mapcount[frames] == 1", "allocator.mapcount[frames] <= 2"
)
transit_not_waited_for = slip(fault, "resolve", "await vma.mm.context.changed.wait()", "pass")
gather_does_not_wait_for_fence = slip(
    Gather, "_end", "await client.invalidate_range_end(start, end)", "pass"
)
gather_frees_first = slip(Gather, "finish", "    await self.sync()\n", "")
zap_tells_first_page = slip(
    Deferred,
    "invalidate",
    "mm.notifiers.invalidate_range(start, end)",
    "mm.notifiers.invalidate_range(start, start + 4096)",
)
last_page_not_recalled = slip(recall, "pages_of", "last - first)", "max(last - first - 1, 1))")
first_message_only = slip(
    Recalls, "_tell_one", "self._messages(entries)", "self._messages(entries)[:1]"
)
remove_forgets_grants = slip(Exporter, "remove", "self.firewall.end(grant, reason)", "pass")
last_page_not_attached = slip(
    Firewall, "attach", "offset + size > grant.segment.size", "offset + size >= grant.segment.size"
)
fault_ignores_fork = slip(Exporter, "_quiet", "segment.group.fork_depth\n        or ", "")
fork_begin_recalls_nothing = slip(
    Device, "fork_begin", "self._recalls.begin(segment, (0, segment.pages))", "pass"
)
fork_begin_forgets_the_closed = slip(Device, "fork_begin", "await self._closed(process)", "pass")
fork_end_wakes_nobody = slip(Device, "fork_end", "self._wake_faults(group)", "pass")
get_after_close = slip(AttachCalls, "get", "if not group.live:", "if False:")
dying_permit_used = slip(
    AttachCalls, "_permit", "if permit is None or not permit.live:", "if permit is None:"
)
killed_waiter_keeps_place = slip(
    SendRing,
    "_claim",
    "if why is Wake.KILLED:\n        queue.remove(granted)\n",
    "if why is Wake.KILLED:\n",
)
served_threads_counted_for_ever = slip(Opening, "_serve", "self._host.threads -= 1", "pass")
one_waiter_woken = slip(WaitQueue, "wake_all", "list(self._waiters)", "list(self._waiters)[:1]")
kill_ignored_before_sleep = slip(Scheduler, "park", "if killable and thread.killed:", "if False:")
