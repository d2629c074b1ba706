"""The search itself: histories that are linearizable, that are not, and that cost too much."""

from xpmem_emu.judge.checkers.linearizable import Search, linearizable
from xpmem_emu.judge.history import ABSENT, FOREVER, Access, History, TrackedWord, Verb, Wipe

WORD = TrackedWord(1, 0, 0)


def load(begin: int, end: int, seen: int) -> Access:
    return Access(WORD, Verb.LOAD, begin, end, seen=seen)


def store(begin: int, end: int, value: int, *, sure: bool = True) -> Access:
    return Access(WORD, Verb.STORE, begin, end, value, sure=sure)


def add(begin: int, end: int, seen: int | None) -> Access:
    return Access(WORD, Verb.ADD, begin, end, 1, seen=seen, sure=seen is not None)


def test_a_load_sees_the_store_before_it() -> None:
    assert linearizable([store(1, 2, 7), load(3, 4, 7)]) is Search.YES
    assert linearizable([store(1, 2, 7), load(3, 4, 0)]) is Search.NO


def test_overlapping_operations_may_go_either_way_but_all_agree() -> None:
    assert linearizable([store(1, 9, 7), load(2, 3, 0), load(4, 5, 7)]) is Search.YES
    assert linearizable([store(1, 9, 7), load(2, 3, 7), load(4, 5, 0)]) is Search.NO


def test_a_store_that_may_have_happened_binds_whoever_saw_it() -> None:
    maybe = store(1, FOREVER, 7, sure=False)
    assert linearizable([maybe, load(2, 3, 0)]) is Search.YES
    assert linearizable([maybe, load(2, 3, 0), load(4, 5, 7)]) is Search.YES
    assert linearizable([maybe, load(2, 3, 7), load(4, 5, 0)]) is Search.NO


def test_a_fenced_store_has_no_effect_after_its_end() -> None:
    fenced = store(1, 2, 7, sure=False)
    assert linearizable([fenced, store(3, 4, 8), load(5, 6, 7)]) is Search.NO


def test_two_additions_cannot_both_be_the_first() -> None:
    assert linearizable([add(1, 5, 0), add(2, 6, 1)]) is Search.YES
    assert linearizable([add(1, 5, 0), add(2, 6, 0)]) is Search.NO


def test_many_lost_additions_are_told_apart_by_nobody() -> None:
    lost = [add(n, FOREVER, None) for n in range(1, 25)]
    assert linearizable([*lost, load(30, 31, 13)]) is Search.YES
    assert linearizable([*lost, load(30, 31, 99)]) is Search.NO


def test_what_may_have_happened_and_changed_nothing_costs_nothing() -> None:
    lost = [
        Access(WORD, Verb.COMPARE_SWAP, 2 * n, FOREVER, 100 + n, compare=99, sure=False)
        for n in range(1, 30)
    ]
    counted = [add(10 * n, 10 * n + 15, n - 1) for n in range(1, 30)]
    seen = [load(400, 401, 29), load(500, 501, 128)]
    assert linearizable([*lost, *counted], budget=200) is Search.YES
    assert linearizable([*lost, *counted, *seen], budget=200) is Search.NO


def test_a_spent_budget_is_not_an_answer() -> None:
    swaps = [Access(WORD, Verb.SWAP, 1, 100, value, seen=value % 3) for value in range(1, 20)]
    assert linearizable(swaps, budget=2) is Search.UNKNOWN


def test_many_stores_at_once_are_no_trouble() -> None:
    operations = [store(1, 100, value) for value in range(1, 40)]
    seen = [load(2 * at, 2 * at + 1, value) for at, value in enumerate((7, 39, 7, 20), 5)]
    assert linearizable([*operations, *seen[:2]]) is Search.YES
    assert linearizable([*operations, *seen]) is Search.NO


def test_pages_that_go_take_their_words_along() -> None:
    history = History([store(1, 2, 7), load(9, 10, 7)], [Wipe(1, 0, 1, ABSENT, 4, 6)])
    assert linearizable(history.by_word()[WORD]) is Search.NO
    history.wipes[0] = Wipe(1, 1, 1, ABSENT, 4, 6)
    assert linearizable(history.by_word()[WORD]) is Search.YES
