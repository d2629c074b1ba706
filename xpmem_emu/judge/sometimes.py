"""Situations that a campaign must reach, or it proves nothing about them.

Each is a name with one line of meaning and a rule over the event stream or the harness. A swarm
says which of them its worlds must reach; one that never comes up over enough seeds fails the
campaign: the worlds are too tame.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from xpmem_emu.failpoints.events import PointHit
from xpmem_emu.judge.scene import EventHandler, EventHandlers, Scene
from xpmem_emu.mm.events import Cow, Migrated, SwapOut
from xpmem_emu.mmu import events as mmu
from xpmem_emu.trace import Event
from xpmem_emu.xpc import events as xpc
from xpmem_emu.xpmem import events as xpmem

EVERYDAY: Mapping[str, str] = {
    "invalidate_crossed_reply": "an INVALIDATE overtook the answer to a FAULT, which was dropped",
    "fault_retried": "a fault was tried again after that, and worked",
    "fault_crossed_twice": "a second INVALIDATE crossed the answer to the same fault",
    "recall_had_many_holders": "one recall had to reach two partitions or more",
    "recall_hit_deadline": "a holder did not acknowledge in time and was fenced",
    "fence_moved_pages": "live pages were moved away from a lost importer",
    "fenced_importer_woke_in_store": "a store landed late, from an importer given up meanwhile",
    "quarantine_ended_by_rejoin": "frames came back because the importer rejoined",
    "quarantine_ended_by_proof": "frames came back because the process was proven gone",
    "cow_broken_for_holder": "copy on write was broken while a fault was served",
    "pages_swapped_out": "reclaim wrote pages to swap",
    "pages_migrated": "pages got new frames",
    "segment_removed_while_held": "a segment went away under its importers",
    "import_lost_while_mapped": "an importer lost a home whose pages it had mapped",
    "pages_evicted": "an importer gave pages back",
    "fault_failed": "a fault ended with a refusal by the exporter",
    "stale_frame_dropped": "a frame of another session was dropped",
    "duplicate_dropped": "a repeated request was told apart",
    "request_retransmitted": "a request was sent again",
    "damaged_frame_dropped": "a frame that was damaged on the way was dropped",
    "late_reply": "an answer came after its caller had gone",
    "reactivation": "a partition came back in a new session",
    "disengage_timeout": "a peer did not say in time that it let go",
    "heartbeat_lost": "a peer was given up for its heartbeat",
    "request_refused": "a request found no thread and had to come again",
    "failpoint_failed": "something failed because a failpoint said so",
    "failpoint_delayed": "a thread was held up at a failpoint",
    "number_past_edge": "the numbers of requests passed 2^31 or 2^32",
    "sequence_past_edge": "the sequence of a segment passed 2^31 or 2^32",
    "fault_on_wrong_clock": "a fault ended on a partition whose clock is wrong",
}
"""What every swarm must reach that does not say otherwise."""
AIMED: Mapping[str, str] = {
    "killed_in_call": "a task was killed as one of its calls went to sleep",
    "kill_during_recall": "a task was killed while a recall of its call waited",
    "killed_in_fork": "a task was killed in fork",
    "fork_ended_by_signal": "and its fork was answered with that signal",
    "close_raced_exec": "a task closed the device and executed at once",
    "exec_raced_access": "a task executed and touched memory at once",
    "exec_raced_fault": "a task executed while it waited for a page of another partition",
    "attach_raced_release": "a permit was released while it was attached",
    "attach_raced_close": "the device was closed while something was attached",
    "fork_raced_munmap": "a task forked and unmapped at once",
    "late_evict_of_old_session": "a session ended with an EVICT of it still in its thread",
    "late_get_of_old_session": "a session ended with a GET of it still in its thread",
    "fence_finished_before_return": "a call returned whose recall gave somebody up, fenced by then",
    "fence_met_poisoned_frames": "a lost importer was fenced by a home with poisoned frames",
    "window_neighbour_replaced": "pages beside the one that was asked for moved meanwhile",
    "pin_limit_met_by_two": "two faults were served at once under a limit on pins",
    "bte_timed_out": "a block copy ran out of time",
    "bte_timed_out_then_session_lived": "and its session went on",
    "failpoint_paused": "a thread was paused at a failpoint",
    "failpoint_panicked": "a kernel panicked because a failpoint said so",
    "healed_when_full": "something was healed or ended while all places for calls were taken",
    "boot_over_stopped": "a process booted over one that was merely stopped",
    "first_process_woke_in_store": "and the first one woke in the middle of a store",
    "forged_heartbeat": "a malicious peer said a heartbeat near the end of all numbers",
    "forged_flood": "it said the same many times",
    "forged_give_back": "it gave back what may be another's",
    "forged_answer": "it answered what was asked, falsely",
    "forged_claim": "it claimed to be a later boot of itself",
    "extreme_argument_taken": "a call with an argument beyond 2^63 succeeded",
    "extreme_argument_refused": "a call with such an argument was refused",
    "segment_to_the_top": "a segment was asked for that reaches beyond 2^63",
    "copy_of_a_giant": "a block copy of a GiB or more was asked for",
    "copy_of_a_tebibyte": "one of a TiB or more was begun",
    "argument_of_no_type": "a call was not even begun: its arguments are of no type that it has",
    "empty_pwrite": "nothing was written into a file",
    "unaligned_beside_dead_area": "bytes up to the border of a dead attachment were touched",
    "access_into_dead_area": "an access began in a living attachment and ended in a dead one",
    "detach_of_partly_replaced": "an attachment went whose tail was something else by then",
    "fork_of_read_only_exporter": "an exporter forked with pages that it could only read",
    "store_through_read_only_source": "an importer stored where the exporter could only read",
    "setuid_away_from_root": "a task that had been root was refused a permit",
    "get_not_permitted": "a permit was refused for want of rights",
    "amo_after_remove": "an atomic operation was tried after its segment was removed",
    "word_of_removed_segment": "and that on a word that takes atomic operations",
    "gru_miss_waited": "a miss of a GRU waited for a range that was being invalidated",
    "mirror_waited": "so did one of a mirror, before it walked",
    "shadow_walk_retried": "an invalidation crossed a walk for a guest or mirror",
    "asids_came_again": "a GRU ran out of ASIDs, was flushed, and gave them out again",
    "recall_took_translations": "a recall took translations of an importer's device along",
    "hole_of_mspec_refused": "somebody asked for a page of mspec that its task had not touched",
    "cached_alias_refused": "a device asked for a page of uncached memory",
    "bte_retried": "a block transfer asked again for what it read",
    "bte_retry_worked": "and came to its end",
    "bte_broke_off": "a block transfer failed when some of its bytes had arrived",
    "bte_write_in_doubt": "nobody knows what a write of a block transfer did",
    "bte_met_bad_frame": "a block transfer came to a bad frame, and its task lived",
    "own_pages_taken": "a device lost translations of pages of its task's own partition",
}
"""What needs worlds that are made for it."""
MEANINGS: Mapping[str, str] = {**EVERYDAY, **AIMED}


_EDGES = (1 << 31, 1 << 32)
_PAST = 64


def _past_edge(number: int) -> bool:
    """Whether a counter has just passed where 32 bits end, signed or not."""
    return any(0 <= number - edge < _PAST for edge in _EDGES)


class Sometimes:
    """Counts how often each situation came up."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.reached: Counter[str] = Counter()
        self.wrong_clock = False
        """Whether the clock of its partition shows another time than the world's."""
        self._collided: set[tuple[int, int]] = set()

    def handlers(self) -> EventHandlers:
        """Rules over single events."""
        note = self._note
        return {
            xpmem.FaultCollision: self._collision,
            xpmem.FaultEnd: self._fault_end,
            xpmem.RecallBegin: note("recall_had_many_holders", lambda e: len(e.holders) > 1),
            xpmem.RecallEnd: note("recall_hit_deadline", lambda e: bool(e.fenced)),
            xpmem.FenceEnd: note("fence_moved_pages", lambda e: e.moved > 0),
            xpmem.QuarantineEmpty: self._quarantine,
            xpmem.Invalidated: note(
                "segment_removed_while_held", lambda e: bool(e.going_away and e.ptes)
            ),
            xpmem.ImportLost: note("import_lost_while_mapped", lambda e: e.ptes > 0),
            xpmem.PagesEvict: note("pages_evicted"),
            Cow: note("cow_broken_for_holder", lambda e: self._scene.thread.startswith("xpc")),
            SwapOut: note("pages_swapped_out"),
            Migrated: note("pages_migrated", lambda e: e.moved > 0),
            xpc.Stale: note("stale_frame_dropped"),
            xpc.Duplicate: note("duplicate_dropped"),
            xpc.Retransmit: note("request_retransmitted"),
            xpc.BadFrame: note("damaged_frame_dropped"),
            xpc.LateReply: note("late_reply"),
            xpc.DisengageTimeout: note("disengage_timeout"),
            xpc.PartitionChange: self._partition,
            xpc.Refused: note("request_refused"),
            xpc.Sent: note("number_past_edge", lambda e: _past_edge(e.number)),
            xpmem.SequenceBump: note("sequence_past_edge", lambda e: _past_edge(e.sequence)),
            xpmem.BteRetry: note("bte_retried"),
            xpmem.BteEnd: self._transfer_ends,
            PointHit: self._failpoint,
            mmu.MmuWait: self._miss_waits,
            mmu.MmuRetry: note("shadow_walk_retried"),
            mmu.AsidsExhausted: note("asids_came_again"),
            mmu.MmuInvalidate: self._invalidated,
        }

    def reach(self, name: str) -> None:
        """Note a situation that no single event shows."""
        assert name in MEANINGS
        self.reached[name] += 1

    def _note(self, name: str, rule: Callable[[Any], bool] = lambda event: True) -> EventHandler:
        def handler(partid: int, event: Event) -> None:
            if rule(event):
                self.reach(name)

        return handler

    def _transfer_ends(self, partid: int, event: xpmem.BteEnd) -> None:
        done = event.outcome == "done"
        for name, reached in (
            ("bte_retry_worked", bool(event.retries) and done),
            ("bte_broke_off", 0 < event.arrived < event.size),
            ("bte_write_in_doubt", event.doubtful > 0),
            ("bte_met_bad_frame", "machine check" in event.outcome),
        ):
            if reached:
                self.reach(name)

    def _collision(self, partid: int, event: xpmem.FaultCollision) -> None:
        self.reach("invalidate_crossed_reply")
        self._collided.add((partid, event.segid))
        if event.attempt >= 1:
            self.reach("fault_crossed_twice")

    def _failpoint(self, partid: int, event: PointHit) -> None:
        self.reach("failpoint_failed" if "return" in event.action else "failpoint_delayed")

    def _miss_waits(self, partid: int, event: mmu.MmuWait) -> None:
        self.reach("gru_miss_waited" if event.device == "gru" else "mirror_waited")

    def _invalidated(self, partid: int, event: mmu.MmuInvalidate) -> None:
        if event.dropped and event.settles:
            self.reach("own_pages_taken")
        elif event.dropped and self._scene.thread.startswith("xpc"):
            self.reach("recall_took_translations")

    def _fault_end(self, partid: int, event: xpmem.FaultEnd) -> None:
        if self.wrong_clock:
            self.reach("fault_on_wrong_clock")
        if event.outcome == "installed":
            if (partid, event.segid) in self._collided:
                self._collided.discard((partid, event.segid))
                self.reach("fault_retried")
        elif event.outcome not in ("invalidated", "abandoned"):
            self.reach("fault_failed")

    def _quarantine(self, partid: int, event: xpmem.QuarantineEmpty) -> None:
        rejoined = "rejoined" in event.proof
        self.reach("quarantine_ended_by_rejoin" if rejoined else "quarantine_ended_by_proof")

    def _partition(self, partid: int, event: xpc.PartitionChange) -> None:
        if event.reason == "REACTIVATING":
            self.reach("reactivation")
        if event.reason == "NO_HEARTBEAT":
            self.reach("heartbeat_lost")
