"""Situations of several things at once, from the event stream: which calls of a task are under way
together, and what happens to a task, a recall or a session in the middle. Nothing is judged here.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from xpmem_emu.failpoints.events import PointHit
from xpmem_emu.inject.events import InjectionBegin as Injected
from xpmem_emu.inject.events import InjectionEnd as Healed
from xpmem_emu.judge.scene import EventHandlers, Scene
from xpmem_emu.judge.sometimes import Sometimes
from xpmem_emu.kernel.breaking import Breaking
from xpmem_emu.kernel.calls import Kill, Shutdown
from xpmem_emu.kernel.events import KernelBoot, Syscall, SyscallDone, TaskSignal
from xpmem_emu.kernel.interface import Request
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpc.events import Duplicate, PartitionChange, Received, Refused, Sent
from xpmem_emu.xpmem import events

_PAIRS: Mapping[frozenset[str], str] = {
    frozenset(pair): name
    for name, *pair in (
        ("close_raced_exec", "xpmem_close", "exec"),
        ("exec_raced_access", "exec", "load"),
        ("exec_raced_access", "exec", "store"),
        ("attach_raced_release", "xpmem_attach", "xpmem_release"),
        ("attach_raced_close", "xpmem_attach", "xpmem_close"),
        ("fork_raced_munmap", "fork", "munmap"),
    )
}
_ENDS = ("kill", "exit", "spawn")
"""Calls about a task, not of it."""
_LATE = {"EVICT": "late_evict_of_old_session", "GET": "late_get_of_old_session"}
_LIVED_NS = 500 * MILLISECOND
"""A session that lives so long after a block copy ran out of time did not end by it: silence ends
one within 150 ms in the slowest images that are drawn, a missed heartbeat within 260 ms."""
_Task = tuple[int, int]


class Races:
    """Follows calls, recalls, faults and requests."""

    def __init__(self, scene: Scene, sometimes: Sometimes) -> None:
        self._scene = scene
        self._reach = sometimes.reach
        self._calls: dict[_Task, Counter[str]] = defaultdict(Counter)
        self._recalls: dict[tuple[int, int], str] = {}
        self._gave_up: dict[tuple[int, str], set[int]] = defaultdict(set)
        """(partition, thread) -> importers that a recall of it gave up."""
        self._fences: set[tuple[int, int]] = set()
        """(partition, importer): fences that go on."""
        self._serving: dict[tuple[int, int], dict[tuple[int, int], str]] = defaultdict(dict)
        self._faults: dict[tuple[int, int], tuple[events.FaultBegin, str]] = {}
        """(partition, fault) -> what it asks for, and in which thread."""
        self._copies: dict[int, int] = {}
        """When a block copy of a partition ran out of time."""
        self._injected: dict[str, str] = {}
        """What is in force, by its name."""

    def handlers(self) -> EventHandlers:
        """What is followed."""
        return {
            KernelBoot: self._booted,
            Syscall: self._call_begins,
            SyscallDone: self._call_ends,
            TaskSignal: self._signal,
            events.RecallBegin: self._recall_begins,
            events.RecallEnd: self._recall_ends,
            events.FenceBegin: self._fence_begins,
            events.FenceEnd: self._fence_ends,
            events.FaultBegin: self._fault_begins,
            events.FaultEnd: self._fault_ends,
            events.SequenceBump: self._bump,
            Received: self._received,
            Sent: self._answered,
            Refused: self._answered,
            Duplicate: self._answered,
            PartitionChange: self._partition,
            PointHit: self._acted,
            Injected: self._begun,
            Healed: self._healed,
        }

    def asked(self, partid: int, request: Request) -> None:
        """A call arrives."""
        if isinstance(request.call, Breaking | Kill | Shutdown) and self._full(partid):
            self._reach("healed_when_full")

    def _full(self, partid: int) -> bool:
        """Whether no place is left for a call that works."""
        kernel = self._scene.kernels.get(partid)
        return kernel is not None and (len(kernel.scheduler.threads) >= kernel.image.limits.threads)

    def _booted(self, partid: int, event: KernelBoot) -> None:
        tables: tuple[dict[Any, Any], ...] = (
            self._calls,
            self._recalls,
            self._gave_up,
            self._serving,
            self._faults,
        )
        for table in tables:
            for key in [key for key in table if key[0] == partid]:
                del table[key]
        self._fences = {each for each in self._fences if each[0] != partid}
        self._copies.pop(partid, None)

    # -- calls -----------------------------------------------------------------------------

    def _call_begins(self, partid: int, event: Syscall) -> None:
        if not event.pid or event.op in _ENDS:
            return
        others = self._calls[partid, event.pid]
        for other in others:
            name = _PAIRS.get(frozenset((event.op, other)))
            if name is not None:
                self._reach(name)
        if event.op == "exec" and any(
            home == partid and thread.endswith(f"/{event.pid}")
            for (home, _), (_, thread) in self._faults.items()
        ):
            self._reach("exec_raced_fault")
        others[event.op] += 1

    def _call_ends(self, partid: int, event: SyscallDone) -> None:
        others = self._calls[partid, event.pid]
        others[event.op] -= 1
        if others[event.op] <= 0:
            del others[event.op]
        if event.op == "xpmem_copy" and event.outcome == "ETIMEDOUT":
            self._reach("bte_timed_out")
            self._copies[partid] = self._scene.now_ns
        given_up = self._gave_up.pop((partid, self._scene.thread), set())
        if given_up and not any((partid, importer) in self._fences for importer in given_up):
            self._reach("fence_finished_before_return")

    def _signal(self, partid: int, event: TaskSignal) -> None:
        if not event.fatal:
            return
        if "fork" in self._calls[partid, event.pid]:
            self._reach("killed_in_fork")
        mine = f"/{event.pid}"
        if any(
            home == partid and thread.endswith(mine) for (home, _), thread in self._recalls.items()
        ):
            self._reach("kill_during_recall")

    # -- recalls and faults ----------------------------------------------------------------

    def _recall_begins(self, partid: int, event: events.RecallBegin) -> None:
        self._recalls[partid, event.recall] = self._scene.thread

    def _recall_ends(self, partid: int, event: events.RecallEnd) -> None:
        thread = self._recalls.pop((partid, event.recall), "")
        if event.fenced:
            self._gave_up[partid, thread].update(event.fenced)

    def _fence_begins(self, partid: int, event: events.FenceBegin) -> None:
        self._fences.add((partid, event.importer))
        if self._in_force(f"poison p{partid} "):
            self._reach("fence_met_poisoned_frames")

    def _fence_ends(self, partid: int, event: events.FenceEnd) -> None:
        self._fences.discard((partid, event.importer))

    def _fault_begins(self, partid: int, event: events.FaultBegin) -> None:
        self._faults[partid, event.fault] = event, self._scene.thread

    def _fault_ends(self, partid: int, event: events.FaultEnd) -> None:
        self._faults.pop((partid, event.fault), None)

    def _bump(self, partid: int, event: events.SequenceBump) -> None:
        """Pages beside the one that somebody wants have moved."""
        end = event.page + event.count
        for fault, _ in self._faults.values():
            if fault.segid != event.segid or event.page <= fault.touched < end:
                continue
            if event.page < fault.page + fault.count and fault.page < end:
                self._reach("window_neighbour_replaced")

    # -- sessions --------------------------------------------------------------------------

    def _received(self, partid: int, event: Received) -> None:
        serving = self._serving[partid, event.peer]
        serving[event.channel, event.number] = event.kind
        if event.kind == "FAULT" and self._in_force(f"strain p{partid} pin_limit"):
            faults = sum(
                kind == "FAULT"
                for each, kinds in self._serving.items()
                if each[0] == partid
                for kind in kinds.values()
            )
            if faults > 1:
                self._reach("pin_limit_met_by_two")
        timed_out_ns = self._copies.get(partid)
        if timed_out_ns is not None and self._scene.now_ns - timed_out_ns > _LIVED_NS:
            del self._copies[partid]
            self._reach("bte_timed_out_then_session_lived")

    def _answered(self, partid: int, event: Sent | Refused | Duplicate) -> None:
        if event.kind != "PENDING":
            self._serving[partid, event.peer].pop((event.channel, event.number), None)

    def _partition(self, partid: int, event: PartitionChange) -> None:
        if event.state == "ACTIVE":
            return
        self._copies.pop(partid, None)
        for kind in self._serving.pop((partid, event.peer), {}).values():
            if kind in _LATE:
                self._reach(_LATE[kind])

    # -- what is injected ------------------------------------------------------------------

    def _acted(self, partid: int, event: PointHit) -> None:
        if "pause" in event.action:
            self._reach("failpoint_paused")
        elif "panic" in event.action:
            self._reach("failpoint_panicked")

    def _begun(self, partid: int, event: Injected) -> None:
        self._injected[event.name] = event.fault

    def _healed(self, partid: int, event: Healed) -> None:
        self._injected.pop(event.name, None)

    def _in_force(self, fault: str) -> bool:
        """Whether a fault whose text begins so is in force."""
        return any(text.startswith(fault) for text in self._injected.values())
