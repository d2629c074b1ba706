"""S8 and S9 over the history of a run: each word linearizable, each counter counted right.

Accesses through a session that the exporter ended before they were over are not bound: the
exporter had given that importer up, and what it sees or stores since is fenced (S7). Its loads are
left out; its stores may have come in time or not.
"""

from msgspec.structs import replace

from xpmem_emu.judge.checkers.linearizable import Search, linearizable
from xpmem_emu.judge.history import Access, History, TrackedWord, Verb
from xpmem_emu.judge.invariants import Invariant, Judge
from xpmem_emu.judge.scene import Scene

JUDGE = Judge(
    "memory",
    (Invariant.S8, Invariant.S9),
    "the history of every tracked word; additions to counters",
)


def check_memory(scene: Scene, history: History) -> int:
    """Judge every word of the run. Returns for how many of them the search gave no answer."""
    unknown = 0
    for word, accesses in history.by_word().items():
        bound = _bound(scene, accesses)
        answer = linearizable(bound)
        unknown += answer is Search.UNKNOWN
        if answer is Search.NO:
            scene.report(Invariant.S8, -1, f"{_name(word)} is not linearizable: {_tail(bound)}")
        _check_adds(scene, word, bound)
    return unknown


def _bound(scene: Scene, accesses: list[Access]) -> list[Access]:
    bound = []
    for access in accesses:
        if access.home < 0 or not scene.sessions.gave_up(
            access.home, access.actor, access.since, access.end
        ):
            bound.append(access)
        elif access.verb is not Verb.LOAD:
            bound.append(replace(access, sure=False))
    return bound


def _check_adds(scene: Scene, word: TrackedWord, accesses: list[Access]) -> None:
    """Of a word that is only ever added 1 to, no two adds saw the same value."""
    adds = [access for access in accesses if access.verb is Verb.ADD]
    if not adds or any(access.verb not in (Verb.ADD, Verb.LOAD) for access in accesses):
        return
    seen = [access.seen for access in adds if access.seen is not None]
    if len(set(seen)) != len(seen):
        scene.report(
            Invariant.S9, -1, f"{_name(word)}: two adds saw the same value among {sorted(seen)}"
        )
    if seen and max(seen) >= len(adds):
        scene.report(Invariant.S9, -1, f"{_name(word)}: {len(adds)} adds, but one saw {max(seen)}")


def _name(word: TrackedWord) -> str:
    return f"word {word.word} of page {word.page} of region {word.region}"


def _tail(accesses: list[Access]) -> str:
    shown = sorted(accesses, key=lambda access: access.begin)[-12:]
    return "; ".join(
        f"[{each.begin},{each.end if each.sure else '?'}] p{each.actor} {each.verb.value}"
        f" {each.operand or ''} saw {each.seen}"
        for each in shown
    )
