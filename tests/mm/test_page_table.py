"""Radix tree and page table against a dictionary; entries against their states."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpmem_emu.errors import KernelBug
from xpmem_emu.mm import pte
from xpmem_emu.mm.extents import distinct, groups, leading, numbers, paired_runs, runs
from xpmem_emu.mm.page_table import PageTable
from xpmem_emu.mm.radix import RadixTree

# Pages near the borders of leaves and nodes, where mistakes live.
borders = st.sampled_from([0, 511, 512, (1 << 18) - 1, 1 << 18, (1 << 27) - 1, (1 << 35) - 600])
pages = st.builds(lambda base, step: base + step, borders, st.integers(0, 600))
writes = st.lists(st.tuples(pages, st.integers(1, 700), st.integers(0, (1 << 58) - 1)), max_size=12)


def vector(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@given(writes, pages, st.integers(1, 2000))
def test_page_table_reads_what_a_dictionary_would(
    steps: list[tuple[int, int, int]], first: int, count: int
) -> None:
    table, model = PageTable(), dict[int, int]()
    for page, length, value in steps:
        vpns = numbers(page, length)
        table.write(vpns, np.full(length, value, dtype=np.uint64))
        model.update(dict.fromkeys(vpns.tolist(), value))
    wanted = [model.get(vpn, 0) for vpn in range(first, first + count)]
    assert table.read_range(first, count).tolist() == wanted
    assert table.read(numbers(first, count)).tolist() == wanted
    assert table.walk(first) == wanted[0]
    vpns, entries = table.entries(first, count)
    assert dict(zip(vpns.tolist(), entries.tolist(), strict=True)) == {
        first + i: value for i, value in enumerate(wanted) if value
    }


def test_clearing_the_last_entry_removes_the_whole_path() -> None:
    table = PageTable()
    vpns = numbers((1 << 27) - 2, 4)
    table.write(vpns, np.ones(4, dtype=np.uint64))
    assert [there for _, there in table.levels((1 << 27) - 1)] == [True, True, True]
    table.write(vpns[:2], np.zeros(2, dtype=np.uint64))
    assert [there for _, there in table.levels((1 << 27) - 1)] == [False]
    assert [there for _, there in table.levels(1 << 27)] == [True, True, True]


def test_range_walk_touches_only_leaves_that_exist() -> None:
    made: list[list[int]] = []

    def make() -> list[int]:
        made.append([])
        return made[-1]

    tree = RadixTree(make)
    for page in (5, 1 << 30, (1 << 35) + 512):
        tree.ensure(page)
    found = list(tree.leaves(0, 1 << 36))
    assert [(base, lo, hi) for base, _, lo, hi in found] == [
        (0, 0, 512),
        (1 << 30, 0, 512),
        ((1 << 35) + 512, 0, 512),
    ]
    assert len(made) == 3
    assert [(base, lo, hi) for base, _, lo, hi in tree.leaves(3, 4)] == [(0, 3, 7)]


def test_page_numbers_beyond_36_bits_are_refused() -> None:
    with pytest.raises(KernelBug):
        RadixTree(list).ensure(1 << 36)


@given(st.lists(st.integers(0, 40), unique=True))
def test_runs_cover_the_values_in_order_with_no_run_that_could_be_longer(values: list[int]) -> None:
    found = runs(vector(values))
    assert [first + i for first, count in found for i in range(count)] == values
    assert all(a + n != b for (a, n), (b, _) in itertools.pairwise(found))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_paired_runs_stay_consecutive_on_both_sides(pairs: list[tuple[int, int]]) -> None:
    left, right = vector([a for a, _ in pairs]), vector([b for _, b in pairs])
    covered = [(a + i, b + i) for a, b, count in paired_runs(left, right) for i in range(count)]
    assert covered == pairs


@given(st.lists(st.integers(0, 9), max_size=30))
def test_distinct_has_each_value_once_in_order(values: list[int]) -> None:
    assert distinct(vector(values)).tolist() == sorted(set(values))


def test_groups_and_leading_describe_vectors() -> None:
    assert groups(vector([4, 4, 7, 7, 7, 9])) == [(4, 0, 2), (7, 2, 5), (9, 5, 6)]
    assert groups(vector([])) == []
    assert leading(np.array([True, True, False, True])) == 2
    assert leading(np.array([True, True])) == 2


def test_entries_survive_a_transit_unchanged() -> None:
    plain = pte.make(vector([7, 8]), pte.PRESENT | pte.WRITE | pte.DIRTY)
    hidden = pte.make(vector([9]), pte.PROT_NONE | pte.DIRTY)
    entries = np.concatenate((plain, hidden))
    held = pte.busy(entries)
    assert not pte.has(held, pte.PRESENT).any()
    assert pte.counted(held).all()
    assert pte.frame_field(held).tolist() == [7, 8, 9]
    assert pte.settled(held).tolist() == entries.tolist()


def test_special_and_swapped_entries_hold_no_counted_frame() -> None:
    special = pte.make(vector([1 << 40]), pte.PRESENT | pte.SPECIAL)
    swapped = pte.make(vector([3]), pte.SWAP)
    assert not pte.counted(np.concatenate((special, swapped))).any()


def test_entries_describe_themselves() -> None:
    assert pte.pte_text(0) == "absent"
    assert pte.pte_text(0x12 << 12 | pte.PRESENT | pte.WRITE) == "frame 0x12 present write"
    assert pte.pte_text(3 << 12 | pte.SWAP) == "slot 3 swap"
