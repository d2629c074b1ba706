"""Broken protocols, to prove that the checkers can see: each mutant must be caught.

A mutant replaces one named attribute from outside for the time of a `with` block; no kernel code
knows of it. It names the invariants of which one must be reported: a mutant that is caught by
accident proves nothing about the checker it was meant for. How each one breaks its function is in
`breaks`.

`canary` breaks every store and must fail at once: when it does not, the harness is blind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xpmem_emu.sim.breaks import (
    Break,
    areas,
    exporting,
    fencing,
    files,
    importing,
    memory,
    messages,
    rights,
    sessions,
    sharing,
    slips_exporting,
    slips_importing,
    slips_refusing,
    tasks,
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break the protocol. `caught_by`: the invariants that may report it."""

    name: str
    meaning: str
    caught_by: frozenset[str]
    broken: Break
    swarm: str
    """Where it is hunted: `chaos`, unless what it breaks is not, or hardly, drawn there."""
    world: str
    """The small world that is about what it breaks, explored further than the others."""


def _mutant(
    name: str, meaning: str, caught_by: str, broken: Break, swarm: str = "chaos", world: str = ""
) -> Mutant:
    return Mutant(name, meaning, frozenset(caught_by.split()), broken, swarm, world)


MUTANTS = {
    mutant.name: mutant
    for mutant in (
        _mutant("canary", "stores write something else", "S8 S14", memory.canary),
        _mutant("install_invalid", "an answer that a recall overtook is installed", "S1 S4",
                sharing.install_invalid, world="inflight-race"),
        _mutant("zap_one_attachment", "of several entries for a page one is zapped", "S1 S2",
                sharing.zap_one_attachment),
        _mutant("free_before_ack", "frames are unpinned before the holders answered", "S1 S2",
                sharing.free_before_ack),
        _mutant("ack_before_zap", "the importer answers first and zaps later", "S1 S2",
                sharing.ack_before_zap),
        _mutant("forget_holder", "a second holder of a page is not noted", "S1 S2 S4",
                sharing.forget_holder),
        _mutant("no_quarantine", "frames of a lost importer are not kept", "S7 S2",
                fencing.no_quarantine),
        _mutant("no_migration", "live pages stay where a lost importer can write", "S7 S8",
                fencing.no_migration, world="fence-wake"),
        _mutant("read_only_ignored", "stores reach what the exporter may only read", "S5",
                sharing.read_only_ignored),
        _mutant("quarantine_without_proof", "quarantine ends as soon as it began", "S7 S2",
                fencing.quarantine_without_proof),
        _mutant("accept_old_incarnation", "frames of earlier sessions are accepted", "S6",
                messages.accept_old_incarnation),
        _mutant("no_dedup", "a repeated request is carried out again", "S9", messages.no_dedup),
        _mutant("amo_twice", "an atomic addition is applied twice", "S8", sharing.amo_twice),
        _mutant("evict_overtakes_fault", "faults do not wait for evictions under way", "S1 S2 S4",
                sharing.evict_overtakes_fault, "chaos-handover", world="detach-fault"),
        _mutant("release_keeps_holders", "a release does not give the pages back", "S3 S10",
                sharing.release_keeps_holders),
        _mutant("unpin_twice", "recalled frames are unpinned twice", "S3 S11",
                sharing.unpin_twice),
        _mutant("lose_without_zap", "the entries of a lost home stay", "S1 S2 S7",
                sharing.lose_without_zap),
        _mutant("fork_without_recall", "fork shares frames that importers can write", "S5 S4 S1 S8",
                memory.fork_without_recall),
        _mutant("stale_ids", "segids and apids do not carry the boot", "S6", sharing.stale_ids),
        _mutant("swap_loses", "swapped pages come back empty", "S8", memory.swap_loses),
        _mutant("reclaim_held", "reclaim takes frames that somebody holds", "S1 S2 S8 S11",
                memory.reclaim_held),
        _mutant("deaf_faults", "an unanswered request never gives up", "L1 L3 S10",
                messages.deaf_faults),
        _mutant("cow_copies_nothing", "copy on write gives empty pages", "S14 S8",
                memory.cow_copies_nothing),
        _mutant("fork_shares_writable", "parent and child store into one page", "S14 S8",
                memory.fork_shares_writable),
        _mutant("dirty_forgotten", "dirty file pages are dropped", "S14 S8",
                files.dirty_forgotten),
        _mutant("tail_shows", "bytes behind the end of a file come up when it grows", "S14",
                files.tail_shows),
        _mutant("anybody_stores", "stores go to areas that forbid them", "S13",
                memory.anybody_stores),
        _mutant("everybody_permitted", "everybody gets every permit", "S13",
                rights.everybody_permitted),
        _mutant("readonly_attached", "read-only permits are attached", "S13",
                rights.readonly_attached),
        _mutant("cached_words", "atomic operations work on cached memory", "S13",
                rights.cached_words, "chaos-rights"),
        _mutant("setuid_keeps_capability", "a capability outlives root", "S13",
                rights.setuid_keeps_capability),
        _mutant("boot_is_proof", "a new boot proves the old process gone", "S7 S2",
                fencing.boot_is_proof,
                "chaos-supersede", world="boot-over"),
        _mutant("grants_outlive", "permits outlive their session", "S15 S10",
                sharing.grants_outlive),
        _mutant("release_forgets_to_tell", "released permits stay granted", "S15 S10",
                sharing.release_forgets_to_tell),
        _mutant("pins_unlimited", "more pages are pinned than may be", "S16",
                sharing.pins_unlimited, "chaos-windows"),
        _mutant("recalls_queue_with_faults", "recalls wait behind faults", "L5 L2",
                messages.recalls_queue_with_faults, "chaos-rush"),
        _mutant("interrupted_expels", "a killed caller takes the peer for dead", "S12",
                messages.interrupted_expels, world="kill-recall"),
        _mutant("pending_is_silence", "PENDING is no sign of life", "S12",
                messages.pending_is_silence),
        _mutant("heart_stops", "most heartbeats are not taken for progress", "S12",
                messages.heart_stops),
        # -- areas and entries
        _mutant("protect_without_recall", "mprotect tells no importer", "S1 S4 S5 S7 S13",
                areas.protect_without_recall, "chaos-private"),
        _mutant("protect_keeps_entries", "a read-only area keeps writable entries", "S13 S5",
                areas.protect_keeps_entries, "chaos-rights"),
        _mutant("move_without_recall", "mremap tells no importer", "S1 S4 S13",
                areas.move_without_recall),
        _mutant("zap_without_recall", "munmap and its kin tell no importer", "S1 S4 S2 S13",
                areas.zap_without_recall),
        _mutant("pin_without_breaking", "importers store into pages that are shared by fork",
                "S14 S5 S8", areas.pin_without_breaking),
        _mutant("hidden_pages_pinned", "what its owner may not touch is given away", "S13 S5 S11",
                areas.hidden_pages_pinned, "chaos-rights"),
        _mutant("private_store_reaches_file", "a private store changes the file", "S14 S8",
                areas.private_store_reaches_file, "chaos-files"),
        _mutant("access_checks_neighbours", "an access fails for what lies beside it", "S13",
                areas.access_checks_neighbours, "chaos-borders"),
        _mutant("zeros_not_written", "a new page shows what was in its frame", "S14 S8",
                areas.zeros_not_written),
        _mutant("copies_before_sync", "contents move while importers still store", "S8 S14 S1 S3",
                areas.copies_before_sync),
        _mutant("one_mapping_found", "of several areas with a page one is found", "S14 S8 S7",
                areas.one_mapping_found),
        _mutant("slots_not_counted", "swap slots that fork shares are counted once",
                "S11 S14 S8", areas.slots_not_counted),
        _mutant("poison_forgotten", "the kernel reads pages that went bad", "S11",
                areas.poison_forgotten, "chaos-supersede", world="poison-fence"),
        _mutant("poison_anywhere", "a bad frame of a peer is taken for one of ours",
                "S11 S13 S14 S10", areas.poison_anywhere),
        # -- files
        _mutant("writeback_writes_nothing", "a writeback only takes the mark away", "S14 S8",
                files.writeback_writes_nothing, "chaos-files"),
        _mutant("pwrite_leaves_clean", "what a call writes is not dirty", "S14 S8",
                files.pwrite_leaves_clean, "chaos-files"),
        _mutant("store_leaves_clean", "what a task stores is not dirty", "S14 S8",
                files.store_leaves_clean, "chaos-files"),
        _mutant("truncate_keeps_mappings", "what was cut off a file is still seen", "S13 S14 S1",
                files.truncate_keeps_mappings, "chaos-files"),
        _mutant("hole_takes_copies", "a hole in a file takes private copies", "S14 S8",
                files.hole_takes_copies, "chaos-files"),
        _mutant("hole_keeps_blocks", "behind a hole is what was there before", "S14",
                files.hole_keeps_blocks, "chaos-files"),
        # -- tasks
        _mutant("teardown_has_two_owners", "who finds a device closing takes it for closed",
                "S11 S17", tasks.teardown_has_two_owners, "chaos-calls", world="exec-close"),
        _mutant("exec_leaves_calls", "exec replaces the memory that other calls of its task use",
                "S17", tasks.exec_leaves_threads, "chaos-calls"),
        _mutant("killed_fork_lives", "who is killed in fork has a child all the same", "S17",
                tasks.killed_fork_lives, "chaos-kills"),
        _mutant("healing_needs_places", "who heals or ends waits for a place like all others",
                "L6", tasks.healing_needs_places, "chaos-pauses"),
        _mutant("stop_answers_nobody", "a kernel that stops leaves calls unanswered", "L3",
                tasks.stop_answers_nobody, "chaos-pauses"),
        # -- exporters
        _mutant("release_drops_all", "a release takes the pages of other permits", "S1 S2 S3",
                exporting.release_drops_all),
        _mutant("drop_forgets_others", "what one holder gives back is taken from all",
                "S1 S2 S3 S4", exporting.drop_forgets_others),
        _mutant("one_range_recalled", "of the ranges of a holder one is recalled", "S1 S2",
                exporting.one_range_recalled),
        _mutant("remove_without_recall", "a removed segment is not recalled", "S1 S2",
                exporting.remove_without_recall),
        _mutant("wrong_frame_served", "importers are told the wrong frame", "S4",
                exporting.wrong_frame_served),
        # -- importers
        _mutant("table_remembers", "recalled frames stay known", "S1 S4 S2",
                importing.table_remembers),
        _mutant("late_replies_kept", "permits of killed calls are kept", "S10 S15 S3",
                importing.late_replies_kept, "chaos-kills", world="detach-fault"),
        _mutant("removed_words_refused", "atomic operations say ENOENT where a load is SIGBUS",
                "S13", importing.removed_words_refused, "chaos-devices"),
        _mutant("detach_takes_strangers", "a detach unmaps what is not its own", "S13 S14",
                importing.detach_takes_strangers),
        _mutant("give_back_what_others_show", "shared pages are given back by one", "S1 S2",
                importing.give_back_what_others_show),
        # -- fences
        _mutant("fence_not_waited_for", "calls return before a lost importer is cut off", "S7",
                fencing.fence_not_waited_for, "chaos-private", world="fence-wake"),
        _mutant("recalled_pages_not_fenced", "what is being recalled is not kept", "S7 S2",
                fencing.recalled_pages_not_fenced, world="fence-wake"),
        # -- sessions and messages
        _mutant("old_work_applied", "requests of an old session are carried out",
                "S1 S2 S3 S6 S10 S15", sessions.old_work_applied, world="session-change"),
        _mutant("heartbeat_remembered", "an old heartbeat hides new ones", "S12 L4",
                sessions.heartbeat_remembered, "chaos-malice"),
        _mutant("heart_stands_still", "heartbeats do not count", "S12",
                sessions.heart_stands_still),
        _mutant("impatience_expels", "who waits no longer gives the peer up", "S12",
                sessions.impatience_expels),
        _mutant("slot_not_passed_on", "who waits for a slot is passed over",
                "L1 L3 L4 L5 S10 S11 S12 S15", messages.slot_not_passed_on, "chaos-devices"),
        _mutant("abandoned_slots_kept", "slots of killed callers are lost", "L1 L3 L4 S10 S12",
                messages.abandoned_slots_kept, "chaos-kills"),
        _mutant("sent_once", "what is lost is not sent again", "S12 L4", messages.sent_once),
        _mutant("sender_unchecked", "messages are sent that no receiver takes", "S12 S11 S13",
                messages.sender_unchecked, "chaos-extremes"),
        # -- slips of the importer
        _mutant("fault_end_wakes_nobody", "who waits for a fault in flight is not woken", "L7",
                slips_importing.fault_end_wakes_nobody),
        _mutant("place_not_passed_on", "who waits for a place among the faults is not woken", "L7",
                slips_importing.place_not_passed_on, "chaos-rush"),
        _mutant("evict_end_wakes_nobody", "who waits for pages that are given back is not woken",
                "L7 S10 S15", slips_importing.evict_end_wakes_nobody),
        _mutant("one_fault_too_many", "one more fault is in flight than may be", "S16",
                slips_importing.one_fault_too_many, "chaos-rush"),
        _mutant("read_ahead_meets_faults", "read-ahead asks for what is asked for", "S18",
                slips_importing.read_ahead_meets_faults),
        _mutant("spoilt_neighbours_installed", "read-ahead that a recall took is installed",
                "S1 S2 S4 S15 S18", slips_importing.spoilt_neighbours_installed,
                "chaos-windows", world="inflight-race"),
        _mutant("release_overtakes_detach", "a release does not wait for pages given back",
                "S15 S3", slips_importing.release_overtakes_detach, "chaos-handover"),
        _mutant("any_home_recalls", "whoever has a session recalls anybody's pages", "S4 S15",
                slips_importing.any_home_recalls, "chaos-malice"),
        _mutant("zap_one_page_short", "of recalled pages the last one stays mapped", "S1 S2 S18",
                slips_importing.zap_one_page_short),
        _mutant("detach_keeps_entries", "pages are given back while they are mapped", "S1 S2 S18",
                slips_importing.detach_keeps_entries),
        _mutant("late_pages_kept", "pages of an answer that nobody waited for are kept", "S15 S3",
                slips_importing.late_pages_kept, "chaos-rush"),
        _mutant("detach_wakes_nobody", "who waits for a detach is not woken", "L3 L7",
                slips_importing.detach_wakes_nobody, "chaos-calls"),
        _mutant("reaped_under_fault", "what is known of a segment goes while a fault is in flight",
                "S18 S15", slips_importing.reaped_under_fault, "chaos-calls"),
        # -- slips of the exporter
        _mutant("pins_never_returned", "unpinned pages count as pinned", "S18",
                slips_exporting.pins_never_returned),
        _mutant("detach_forgets_attachment", "attachments that went stay noted", "S15",
                slips_exporting.detach_forgets_attachment),
        _mutant("fence_end_wakes_nobody", "a fence whose page went by itself wakes nobody", "L7 L3",
                slips_exporting.fence_end_wakes_nobody, "chaos-private"),
        _mutant("close_does_not_wait_for_fence", "close returns before a lost importer is cut off",
                "S7", slips_exporting.close_does_not_wait_for_fence, "chaos-private"),
        _mutant("remove_does_not_wait_for_fence", "remove returns before a lost one is cut off",
                "S7", slips_exporting.remove_does_not_wait_for_fence, "chaos-private"),
        _mutant("own_imports_not_recalled", "imports of the exporter's own partition stay mapped",
                "S1 S2 S18", slips_exporting.own_imports_not_recalled),
        _mutant("others_recalls_not_awaited", "recalls that other calls began are not awaited",
                "S1 S2 S18", slips_exporting.others_recalls_not_awaited, "chaos-calls"),
        _mutant("recall_end_wakes_nobody", "who waits for a recall is not woken", "L7",
                slips_exporting.recall_end_wakes_nobody),
        _mutant("sequence_not_bumped", "recalls have the number of the one before", "S4 S1",
                slips_exporting.sequence_not_bumped),
        # -- slips of what must be refused
        _mutant("strangers_release", "tasks use and release each other's permits", "S13",
                slips_refusing.strangers_release, "chaos-wrongs"),
        _mutant("strangers_attach", "tasks attach through each other's permits", "S13",
                slips_refusing.strangers_attach, "chaos-wrongs"),
        _mutant("strangers_remove", "tasks remove each other's segments", "S13",
                slips_refusing.strangers_remove, "chaos-wrongs"),
        _mutant("odd_mode_taken", "segments have modes that there are not", "S13",
                slips_refusing.odd_mode_taken, "chaos-wrongs"),
        _mutant("empty_segment_made", "segments have no bytes", "S13",
                slips_refusing.empty_segment_made, "chaos-wrongs"),
        _mutant("unaligned_segment_made", "segments have no whole pages", "S13",
                slips_refusing.unaligned_segment_made, "chaos-wrongs"),
        _mutant("segment_beyond_end", "segments end beyond user space", "S13",
                slips_refusing.segment_beyond_end, "chaos-wrongs"),
    )
}  # fmt: skip


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """The kernel broken by a mutant; an empty name breaks nothing. Raises KeyError."""
    if not name:
        yield
        return
    with MUTANTS[name].broken():
        yield
