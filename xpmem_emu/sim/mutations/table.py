"""Broken protocols, to prove that the checkers can see: each mutant must be caught.

A mutant replaces one named attribute from outside for the time of a `with` block; no kernel code
knows of it. It names the invariants of which one must be reported: a mutant that is caught by
accident proves nothing about the checker it was meant for. How each one breaks its function is in
the module beside this one that its row names.

`canary` breaks every store and must fail at once: when it does not, the harness is blind.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from xpmem_emu.sim.mutations.mutant import Mutant, mutant
from xpmem_emu.sim.mutations.slips.table import SLIPS

MUTANTS: dict[str, Mutant] = {
    each.name: each
    for each in (
        mutant("canary", "stores write something else", "S8 S14", "memory"),
        mutant("install_invalid", "an answer that a recall overtook is installed", "S1 S4",
               "sharing", world="inflight-race"),
        mutant("zap_one_attachment", "of several entries for a page one is zapped", "S1 S2",
               "sharing"),
        mutant("free_before_ack", "frames are unpinned before the holders answered", "S1 S2",
               "sharing"),
        mutant("ack_before_zap", "the importer answers first and zaps later", "S1 S2", "sharing"),
        mutant("forget_holder", "a second holder of a page is not noted", "S1 S2 S4", "sharing"),
        mutant("no_quarantine", "frames of a lost importer are not kept", "S7 S2", "fencing"),
        mutant("no_migration", "live pages stay where a lost importer can write", "S7 S8",
               "fencing", world="fence-wake"),
        mutant("read_only_ignored", "stores reach what the exporter may only read", "S5",
               "sharing"),
        mutant("quarantine_without_proof", "quarantine ends as soon as it began", "S7 S2",
               "fencing"),
        mutant("accept_old_incarnation", "frames of earlier sessions are accepted", "S6",
               "messages"),
        mutant("no_dedup", "a repeated request is carried out again", "S9", "messages"),
        mutant("amo_twice", "an atomic addition is applied twice", "S8", "sharing"),
        mutant("evict_overtakes_fault", "faults do not wait for evictions under way", "S1 S2 S4",
               "sharing", "chaos-handover", world="detach-fault"),
        mutant("release_keeps_holders", "a release does not give the pages back", "S3 S10",
               "sharing"),
        mutant("unpin_twice", "recalled frames are unpinned twice", "S3 S11", "sharing"),
        mutant("lose_without_zap", "the entries of a lost home stay", "S1 S2 S7", "sharing"),
        mutant("fork_without_recall", "fork shares frames that importers can write", "S5 S4 S1 S8",
               "memory"),
        mutant("stale_ids", "segids and apids do not carry the boot", "S6", "sharing"),
        mutant("swap_loses", "swapped pages come back empty", "S8", "memory"),
        mutant("reclaim_held", "reclaim takes frames that somebody holds", "S1 S2 S8 S11",
               "memory"),
        mutant("deaf_faults", "an unanswered request never gives up", "L1 L3 S10", "messages"),
        mutant("cow_copies_nothing", "copy on write gives empty pages", "S14 S8", "memory"),
        mutant("fork_shares_writable", "parent and child store into one page", "S14 S8", "memory"),
        mutant("dirty_forgotten", "dirty file pages are dropped", "S14 S8", "files"),
        mutant("tail_shows", "bytes behind the end of a file come up when it grows", "S14",
               "files"),
        mutant("anybody_stores", "stores go to areas that forbid them", "S13", "memory"),
        mutant("everybody_permitted", "everybody gets every permit", "S13", "rights"),
        mutant("readonly_attached", "read-only permits are attached", "S13", "rights"),
        mutant("cached_words", "atomic operations work on cached memory", "S13", "rights",
               "chaos-rights"),
        mutant("setuid_keeps_capability", "a capability outlives root", "S13", "rights"),
        mutant("boot_is_proof", "a new boot proves the old process gone", "S7 S2", "fencing",
               "chaos-supersede", world="boot-over"),
        mutant("grants_outlive", "permits outlive their session", "S15 S10", "sharing"),
        mutant("release_forgets_to_tell", "released permits stay granted", "S15 S10", "sharing"),
        mutant("pins_unlimited", "more pages are pinned than may be", "S16", "sharing",
               "chaos-windows"),
        mutant("recalls_queue_with_faults", "recalls wait behind faults", "L5 L2", "messages",
               "chaos-rush"),
        mutant("interrupted_expels", "a killed caller takes the peer for dead", "S12", "messages",
               world="kill-recall"),
        mutant("pending_is_silence", "PENDING is no sign of life", "S12", "messages",
               "chaos-kills"),
        mutant("heart_stops", "most heartbeats are not taken for progress", "S12", "messages"),
        # -- areas and entries
        mutant("protect_without_recall", "mprotect tells no importer", "S1 S4 S5 S7 S13", "areas",
               "chaos-private"),
        mutant("protect_keeps_entries", "a read-only area keeps writable entries", "S13 S5",
               "areas", "chaos-rights"),
        mutant("move_without_recall", "mremap tells no importer", "S1 S4 S13", "areas"),
        mutant("zap_without_recall", "munmap and its kin tell no importer", "S1 S4 S2 S13",
               "areas"),
        mutant("pin_without_breaking", "importers store into pages that are shared by fork",
               "S14 S5 S8", "areas"),
        mutant("hidden_pages_pinned", "what its owner may not touch is given away", "S13 S5 S11",
               "areas", "chaos-rights"),
        mutant("private_store_reaches_file", "a private store changes the file", "S14 S8", "areas",
               "chaos-files"),
        mutant("access_checks_neighbours", "an access fails for what lies beside it", "S13",
               "areas", "chaos-borders"),
        mutant("zeros_not_written", "a new page shows what was in its frame", "S14 S8", "areas"),
        mutant("copies_before_sync", "contents move while importers still store", "S8 S14 S1 S3",
               "areas"),
        mutant("one_mapping_found", "of several areas with a page one is found", "S14 S8 S7",
               "areas"),
        mutant("slots_not_counted", "swap slots that fork shares are counted once", "S11 S14 S8",
               "areas"),
        mutant("poison_forgotten", "the kernel reads pages that went bad", "S11", "areas",
               "chaos-supersede", world="poison-fence"),
        mutant("poison_anywhere", "a bad frame of a peer is taken for one of ours",
               "S11 S13 S14 S10", "areas"),
        # -- files
        mutant("writeback_writes_nothing", "a writeback only takes the mark away", "S14 S8",
               "files", "chaos-files"),
        mutant("pwrite_leaves_clean", "what a call writes is not dirty", "S14 S8", "files",
               "chaos-files"),
        mutant("store_leaves_clean", "what a task stores is not dirty", "S14 S8", "files",
               "chaos-files"),
        mutant("truncate_keeps_mappings", "what was cut off a file is still seen", "S13 S14 S1",
               "files", "chaos-files"),
        mutant("hole_takes_copies", "a hole in a file takes private copies", "S14 S8", "files",
               "chaos-files"),
        mutant("hole_keeps_blocks", "behind a hole is what was there before", "S14", "files",
               "chaos-files"),
        # -- tasks
        mutant("teardown_has_two_owners", "who finds a device closing takes it for closed",
               "S11 S17", "tasks", "chaos-calls", world="exec-close"),
        mutant("exec_leaves_calls", "exec replaces the memory that other calls of its task use",
               "S17", "tasks", "chaos-calls"),
        mutant("killed_fork_lives", "who is killed in fork has a child all the same", "S17",
               "tasks", "chaos-kills"),
        mutant("healing_needs_places", "who heals or ends waits for a place like all others", "L6",
               "tasks", "chaos-pauses"),
        mutant("stop_answers_nobody", "a kernel that stops leaves calls unanswered", "L3", "tasks",
               "chaos-pauses"),
        # -- exporters
        mutant("release_drops_all", "a release takes the pages of other permits", "S1 S2 S3",
               "exporting"),
        mutant("drop_forgets_others", "what one holder gives back is taken from all", "S1 S2 S3 S4",
               "exporting"),
        mutant("one_range_recalled", "of the ranges of a holder one is recalled", "S1 S2",
               "exporting"),
        mutant("remove_without_recall", "a removed segment is not recalled", "S1 S2", "exporting"),
        mutant("wrong_frame_served", "importers are told the wrong frame", "S4", "exporting"),
        # -- importers
        mutant("table_remembers", "recalled frames stay known", "S1 S4 S2", "importing"),
        mutant("late_replies_kept", "permits of killed calls are kept", "S10 S15 S3", "importing",
               "chaos-kills", world="detach-fault"),
        mutant("removed_words_refused", "atomic operations say ENOENT where a load is SIGBUS",
               "S13", "importing", "chaos-devices"),
        mutant("detach_takes_strangers", "a detach unmaps what is not its own", "S13 S14",
               "importing"),
        mutant("give_back_what_others_show", "shared pages are given back by one", "S1 S2",
               "importing"),
        # -- fences
        mutant("fence_not_waited_for", "calls return before a lost importer is cut off", "S7",
               "fencing", "chaos-private", world="fence-wake"),
        mutant("recalled_pages_not_fenced", "what is being recalled is not kept", "S7 S2 S18",
               "fencing", world="fence-wake"),
        # -- sessions and messages
        mutant("old_work_applied", "requests of an old session are carried out",
               "S1 S2 S3 S6 S10 S15", "sessions", world="session-change"),
        mutant("heartbeat_remembered", "an old heartbeat hides new ones", "S12 L4", "sessions",
               "chaos-malice"),
        mutant("heart_stands_still", "heartbeats do not count", "S12", "sessions"),
        mutant("impatience_expels", "who waits no longer gives the peer up", "S12", "sessions",
               "chaos-kills"),
        mutant("slot_not_passed_on", "who waits for a slot is passed over",
               "L1 L3 L4 L5 S10 S11 S12 S15", "messages", "chaos-devices"),
        mutant("abandoned_slots_kept", "slots of killed callers are lost", "L1 L3 L4 S10 S12",
               "messages", "chaos-kills"),
        mutant("sent_once", "what is lost is not sent again", "S12 L4", "messages"),
        mutant("sender_unchecked", "messages are sent that no receiver takes", "S12 S11 S13",
               "messages", "chaos-extremes"),
        # -- secondary MMUs
        mutant("flush_missed", "a GRU keeps what is invalidated", "S1", "mmus", "chaos-mmu"),
        mutant("flush_too_short", "a GRU flushes one page of a range", "S1", "mmus", "chaos-mmu"),
        mutant("miss_does_not_wait", "a GRU fills in what is being invalidated", "S1", "mmus",
               "chaos-mmu"),
        mutant("asid_reused", "an ASID comes again with the translations of who had it", "S1",
               "mmus", "chaos-mmu"),
        mutant("retry_forgotten", "a walk is good whatever crossed it", "S1", "mmus", "chaos-mmu"),
        mutant("sequence_stands_still", "nobody sees that a walk was crossed", "S1", "mmus",
               "chaos-mmu"),
        mutant("in_progress_ignored", "a guest installs what is being invalidated", "S1", "mmus",
               "chaos-mmu"),
        mutant("interval_too_short", "a mirror misses ranges that begin within it", "S1", "mmus",
               "chaos-mmu"),
        mutant("range_stays_active", "a device takes a range for active for ever", "S18 L3", "mmus",
               "chaos-mmu"),
        mutant("references_kept", "a guest keeps references to pages it shadows no more", "S10 S11",
               "mmus", "chaos-mmu"),
        mutant("ack_before_chain", "an importer acknowledges before its devices are clean", "S1",
               "mmus", "chaos-mmu"),
        *SLIPS,
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
