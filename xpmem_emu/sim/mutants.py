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

from xpmem_emu.sim.breaks import Break, fencing, memory, messages, rights, sharing


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break the protocol. `caught_by`: the invariants that may report it."""

    name: str
    meaning: str
    caught_by: frozenset[str]
    broken: Break


def _mutant(name: str, meaning: str, caught_by: str, broken: Break) -> Mutant:
    return Mutant(name, meaning, frozenset(caught_by.split()), broken)


MUTANTS = {
    mutant.name: mutant
    for mutant in (
        _mutant("canary", "stores write something else", "S8", memory.canary),
        _mutant("install_invalid", "an answer that a recall overtook is installed", "S1 S4",
                sharing.install_invalid),
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
                fencing.no_migration),
        _mutant("read_only_ignored", "stores reach what the exporter may only read", "S5",
                sharing.read_only_ignored),
        _mutant("quarantine_without_proof", "quarantine ends as soon as it began", "S7 S2",
                fencing.quarantine_without_proof),
        _mutant("accept_old_incarnation", "frames of earlier sessions are accepted", "S6",
                messages.accept_old_incarnation),
        _mutant("no_dedup", "a repeated request is carried out again", "S9", messages.no_dedup),
        _mutant("amo_twice", "an atomic addition is applied twice", "S8", sharing.amo_twice),
        _mutant("evict_overtakes_fault", "faults do not wait for evictions under way", "S1 S2 S4",
                sharing.evict_overtakes_fault),
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
                memory.dirty_forgotten),
        _mutant("tail_shows", "bytes behind the end of a file come up when it grows", "S14",
                memory.tail_shows),
        _mutant("anybody_stores", "stores go to areas that forbid them", "S13",
                memory.anybody_stores),
        _mutant("everybody_permitted", "everybody gets every permit", "S13",
                rights.everybody_permitted),
        _mutant("readonly_attached", "read-only permits are attached", "S13",
                rights.readonly_attached),
        _mutant("cached_words", "atomic operations work on cached memory", "S13",
                rights.cached_words),
        _mutant("setuid_keeps_capability", "a capability outlives root", "S13",
                rights.setuid_keeps_capability),
        _mutant("boot_is_proof", "a new boot proves the old process gone", "S7 S2",
                fencing.boot_is_proof),
        _mutant("grants_outlive", "permits outlive their session", "S15 S10",
                sharing.grants_outlive),
        _mutant("release_forgets_to_tell", "released permits stay granted", "S15 S10",
                sharing.release_forgets_to_tell),
        _mutant("pins_unlimited", "more pages are pinned than may be", "S16",
                sharing.pins_unlimited),
        _mutant("recalls_queue_with_faults", "recalls wait behind faults", "L5 L2",
                messages.recalls_queue_with_faults),
        _mutant("interrupted_expels", "a killed caller takes the peer for dead", "S12",
                messages.interrupted_expels),
        _mutant("pending_is_silence", "PENDING is no sign of life", "S12",
                messages.pending_is_silence),
        _mutant("heart_stops", "most heartbeats are not taken for progress", "S12",
                messages.heart_stops),
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
