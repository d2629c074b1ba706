"""The PFN table against a dictionary, ranges against sets, ids against their layout."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpmem_emu.errors import KernelBug
from xpmem_emu.fields import IDENT_END, PARTID_MAX
from xpmem_emu.mm.extents import numbers
from xpmem_emu.xpc.messages import EXTENT_READ_ONLY, EXTENT_UNCACHED
from xpmem_emu.xpmem.extents import extents, intersect, merge, overlaps, subtract
from xpmem_emu.xpmem.ids import IdParts, unpack_id
from xpmem_emu.xpmem.pfn_table import PfnTable

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=6)
BASE = 500  # a leaf border lies inside


def pages_of(ranges: list[tuple[int, int]]) -> set[int]:
    return {page for first, count in ranges for page in range(first, first + count)}


@given(RANGES, RANGES)
def test_ranges_are_sets_of_pages(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    assert pages_of(merge(one)) == pages_of(one)
    assert pages_of(subtract(one, other)) == pages_of(one) - pages_of(other)
    merged = merge(one)
    assert all(a + n < b for (a, n), (b, _) in pairwise(merged))
    for a in one:
        for b in other:
            common = intersect(a, b)
            assert pages_of([common] if common else []) == pages_of([a]) & pages_of([b])
            assert overlaps(a, b) == bool(common)


@given(
    st.integers(0, 255),
    st.integers(0, 1 << 40),
    st.integers(1, (1 << 20) - 1),
    st.integers(1, (1 << 20) - 1),
)
def test_ids_are_positive_short_and_tell_their_parts(
    partid: int, boot: int, tgid: int, uniq: int
) -> None:
    ident = IdParts(partid, boot, tgid, uniq).pack()
    assert ident > 0
    assert len(f"{ident:x}") <= 14
    assert unpack_id(ident) == (partid, boot & 0xFF, tgid, uniq)


@pytest.mark.parametrize("partid", [0, 255, 256, PARTID_MAX])
def test_a_wider_partid_moves_no_other_part_of_an_id(partid: int) -> None:
    ident = IdParts(partid, 0x102, 0x30003, 0x40004).pack()
    assert f"{ident:x}" == f"{partid:x}".lstrip("0") + ("02" if partid else "2") + "3000340004"
    assert unpack_id(ident) == (partid, 2, 0x30003, 0x40004)
    assert ident < IDENT_END < 1 << 63, "a segid is an __s64, and positive"


@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(1, 9), st.integers(1, 9)),
        unique=True,
    )
)
def test_different_parts_give_different_ids(parts: list[tuple[int, int, int, int]]) -> None:
    assert len({IdParts(*part).pack() for part in parts}) == len(parts)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), st.integers(0, 2), st.integers(0, 40), st.integers(1, 30)),
        st.tuples(st.just("drop"), st.integers(0, 2), st.integers(0, 40), st.integers(1, 30)),
        st.tuples(st.just("take"), st.just(0), st.integers(0, 40), st.integers(1, 30)),
    ),
    max_size=30,
)


@given(STEPS)
def test_the_pfn_table_behaves_like_a_dictionary(steps: list[tuple[str, int, int, int]]) -> None:
    table = PfnTable()
    model: dict[int, set[int]] = {}
    for what, who, start, count in steps:
        first, pages = BASE + start, range(BASE + start, BASE + start + count)
        if what == "hold":
            surplus = table.record(first, numbers(1000 + first, count), 0)
            assert sorted(surplus) == [1000 + page for page in pages if page in model]
            table.hold(who, first, count)
            for page in pages:
                model.setdefault(page, set()).add(who)
        elif what == "drop":
            gone = [p for p in pages if model.get(p) == {who}]
            for page in pages:
                model.get(page, set()).discard(who)
            assert table.drop(who, first, count).tolist() == [1000 + page for page in gone]
            for page in gone:
                del model[page]
        else:
            taken = table.take(first, count)
            assert taken.pages.tolist() == sorted(page for page in pages if page in model)
            assert (taken.frames - taken.pages == 1000).all()
            for holder in range(3):
                held = {page for page in pages if holder in model.get(page, ())}
                assert pages_of(taken.holders.get(holder, [])) == held
                assert set(taken.held_by(holder)[1].tolist()) == {1000 + page for page in held}
            for page in pages:
                model.pop(page, None)
    assert table.pages == len(model)
    assert table.known(0, 2000).tolist() == sorted(model)
    for holder in range(3):
        held = {page for page, who in model.items() if holder in who}
        assert pages_of(table.held_by(holder, 0, 2000)) == held
        assert table.holders().get(holder, 0) == len(held)
    spans = [(page, count) for page, _, count, _ in table.extents(0, 2000)]
    assert pages_of(spans) == set(model)


def test_a_known_page_never_gets_another_frame() -> None:
    table = PfnTable()
    table.record(7, numbers(100, 1), 0)
    with pytest.raises(KernelBug, match="S4"):
        table.record(7, numbers(101, 1), 0)


def test_extents_are_cut_where_frames_caching_or_rights_change() -> None:
    pages = np.array([0, 1, 2, 3, 10, 11], dtype=np.int64)
    frames = np.array([5, 6, 9, 10, 11, 12], dtype=np.int64)
    flags = np.array([0, 0, 0, EXTENT_UNCACHED, EXTENT_UNCACHED, EXTENT_READ_ONLY], dtype=np.uint8)
    assert extents(pages, frames, flags) == [
        (0, 5, 2, 0),
        (2, 9, 1, 0),
        (3, 10, 1, 1),
        (10, 11, 1, 1),
        (11, 12, 1, 2),
    ]


def test_a_page_that_is_forgotten_forgets_its_flags() -> None:
    table = PfnTable()
    for forget in (lambda: table.take(7, 1), lambda: table.drop(3, 7, 1)):
        table.record(7, numbers(100, 1), EXTENT_READ_ONLY)
        table.hold(3, 7, 1)
        assert table.flags_of(7) == EXTENT_READ_ONLY
        forget()
        assert table.flags_of(7) == 0


def test_a_table_of_the_whole_address_space_costs_only_what_is_known() -> None:
    table = PfnTable()
    table.record((1 << 35) + 3, numbers(9, 2), EXTENT_UNCACHED)
    table.hold(4, 0, 1 << 36)
    assert table.extents(0, 1 << 36) == [((1 << 35) + 3, 9, 2, 1)]
    assert table.take(0, 1 << 36).holders == {4: [((1 << 35) + 3, 2)]}
    assert table.pages == 0
