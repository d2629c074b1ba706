"""What devices do to memory, as the model of it sees it: a load or store of their task, somewhere.

A guest has addresses of its own, so its slots are followed. Where no slot, or more than one, may be
meant, nobody knows what a store of it did.
"""

from collections import defaultdict

from xpmem_emu.judge.shadow.spaces import Finish
from xpmem_emu.judge.shadow.world import ShadowPartition, ShadowTask
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.device_calls import DeviceLoad, DeviceStore, GuestSlot
from xpmem_emu.kernel.interface import Done, Outcome


class Guests:
    """The slots that guests of all tasks ever had: none is forgotten, for a call under way may
    still mean it."""

    def __init__(self) -> None:
        self._slots: dict[tuple[int, int], set[GuestSlot]] = defaultdict(set)

    def slot(self, at: ShadowPartition, task: ShadowTask, call: GuestSlot) -> None:
        """A guest gets memory, from now on perhaps."""
        if call.length:
            self._slots[at.partid, task.pid].add(call)

    def forget(self, partid: int) -> None:
        """Its tasks are gone."""
        for key in [key for key in self._slots if key[0] == partid]:
            del self._slots[key]

    def address(
        self, at: ShadowPartition, task: ShadowTask, call: DeviceLoad | DeviceStore, size: int
    ) -> int | None:
        """The task's address that the device means; None when that is not certain."""
        if call.device != "guest":
            return call.address
        meant = {
            slot.address + call.address - slot.start
            for slot in self._slots[at.partid, task.pid]
            if slot.start < call.address + size and call.address < slot.start + slot.length
        }
        return meant.pop() if len(meant) == 1 else None


def as_load(call: DeviceLoad, address: int) -> calls.Load:
    """What it is to the task's memory."""
    return calls.Load(call.pid, address, call.size)


def as_store(call: DeviceStore, address: int) -> calls.Store:
    """What it is to the task's memory."""
    return calls.Store(call.pid, address)


def unless_refused(finish: Finish) -> Finish:
    """A device says EFAULT where a task gets a signal; what a store did before, nobody knows."""

    def known(outcome: Outcome | None) -> None:
        finish(outcome if isinstance(outcome, Done) else None)

    return known
