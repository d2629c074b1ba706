"""Slips of waking: something ended, and who waits for it is not told."""

from xpmem_emu.mm.transit import Transit
from xpmem_emu.sched.locks import RwSemaphore
from xpmem_emu.sim.mutations.slip import slip
from xpmem_emu.xpc.delivery import Opening
from xpmem_emu.xpc.slots import SendRing
from xpmem_emu.xpmem.device import Device
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.get import AttachCalls

request_end_wakes_nobody = slip(
    Exporter,
    "_pin",
    "segment.requests.remove(request)\n        segment.changed.wake_all()",
    "segment.requests.remove(request)",
)
teardown_wakes_nobody = slip(Device, "_teardown", "    group.changed.wake_all()\n", "")
transit_wakes_nobody = slip(Transit, "settle", "self.context.changed.wake_all()", "pass")
readers_not_woken = slip(RwSemaphore, "release", "while self._waiters and", "if self._waiters and")
ended_ring_wakes_nobody = slip(SendRing, "end", "queue.popleft().complete(-1)", "queue.popleft()")
drained_untold = slip(Opening, "_serve", "self._drained()", "pass")
failed_attach_wakes_nobody = slip(AttachCalls, "_map", "permit.group.changed.wake_all()", "pass")
teardown_keeps_forkers_waiting = slip(Device, "_teardown", "self._wake_faults(group)", "pass")
