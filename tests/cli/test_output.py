"""Tables for people, documents with a schema for programs, never a mixture."""

import json
import sys

import click
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from xpmem_emu.cli.output import (
    Format,
    Listing,
    cell,
    grid,
    json_line,
    outline,
    show_record,
    show_rows,
)

ROWS = [
    {"partition": "p0", "segid": 0x10000500001, "size": 8 << 20, "wait_ns": 1_500_000, "pins": 9},
    {"partition": "p1", "segid": 0x2, "size": 4097, "wait_ns": 0, "pins": 2048},
]

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def test_a_table_aligns_its_columns_and_prints_units() -> None:
    assert show_rows("segments", ROWS, Format.TABLE).splitlines() == [
        "PARTITION  SEGID          SIZE   WAIT  PINS",
        "p0         0x10000500001    8M  1.5ms     9",
        "p1         0x2            4097    0ns  2048",
    ]


def test_narrow_columns_are_for_tables_and_wide_shows_all() -> None:
    table = show_rows("segments", ROWS, Format.TABLE, ["partition", "pins"])
    assert table.splitlines()[0] == "PARTITION  PINS"
    wide = show_rows("segments", ROWS, Format.WIDE, ["partition", "pins"])
    assert "SEGID" in wide.splitlines()[0]


def test_an_empty_table_still_has_its_titles() -> None:
    assert show_rows("segments", [], Format.TABLE, ["partition", "segid"]) == "PARTITION  SEGID"


def test_json_is_one_document_with_a_schema_and_hex_ids() -> None:
    document = json.loads(show_rows("segments", ROWS, Format.JSON))
    assert document["schema"] == "xpmem-emu/segments/v1"
    assert document["items"][0] == {
        "partition": "p0",
        "segid": "0x10000500001",
        "size": 8 << 20,
        "wait_ns": 1_500_000,
        "pins": 9,
    }


def test_yaml_says_the_same_as_json() -> None:
    assert yaml.safe_load(show_rows("segments", ROWS, Format.YAML)) == json.loads(
        show_rows("segments", ROWS, Format.JSON)
    )


def test_jsonl_is_one_row_a_line_without_a_document_around_it() -> None:
    lines = show_rows("segments", ROWS, Format.JSONL).splitlines()
    assert [json.loads(line)["partition"] for line in lines] == ["p0", "p1"]


def test_a_record_nests_in_the_outline() -> None:
    record = {"segid": 16, "alive": True, "peers": {"p1": "ACTIVE"}, "pages": [{"page": 5}]}
    assert outline(record).splitlines() == [
        "segid: 0x10",
        "alive: yes",
        "peers:",
        "  p1: ACTIVE",
        "pages:",
        "  PAGE",
        "     5",
    ]


def test_nothing_is_a_dash() -> None:
    empty: list[object] = [None, "", [], {}]
    assert [cell("x", value) for value in empty] == ["-"] * 4
    assert cell("segid", 0) == "-"
    assert cell("ranges", [[0, 4], [8, 1]]) == "0,4,8,1"


@given(st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=4))
def test_any_record_survives_every_format(record: dict[str, object]) -> None:
    assert json.loads(show_record("thing", record, Format.JSON)).keys() - {"schema"} == (
        record.keys() - {"schema"}
    )
    assert json.loads(json_line(record)).keys() == record.keys()
    yaml.safe_load(show_record("thing", record, Format.YAML))
    assert grid([record], list(record)).count("\n") >= 1 or not record
    outline(record)


PEERS = [{"name": f"n{number}", "size": number << 10, "state": "live"} for number in (3, 1, 2)]


def test_wide_begins_with_the_columns_of_the_table() -> None:
    wide = show_rows("segments", ROWS, Format.WIDE, ["pins", "partition"])
    assert wide.splitlines()[0].split() == ["PINS", "PARTITION", "SEGID", "SIZE", "WAIT"]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("size", ["n1", "n2", "n3"]),
        ("-size", ["n3", "n2", "n1"]),
        ("NAME", ["n1", "n2", "n3"]),
        ("", ["n3", "n1", "n2"]),
    ],
)
def test_rows_are_sorted_by_any_field_either_way(by: str, names: list[str]) -> None:
    for form in (Format.TABLE, Format.WIDE):
        lines = show_rows("peers", PEERS, Listing(form, by), ["name", "state"]).splitlines()[1:]
        assert [line.split()[0] for line in lines] == names
    document = json.loads(show_rows("peers", PEERS, Listing(Format.JSON, by)))
    assert [item["name"] for item in document["items"]] == names


def test_columns_are_sorted_by_their_titles_too_and_nothing_comes_last() -> None:
    rows: list[dict[str, object]] = [{"wait_ns": None}, {"wait_ns": 9_000_000_000}, {"wait_ns": 10}]
    for by in ("wait", "WAIT", "wait_ns", "wait-ns"):
        lines = show_rows("waits", rows, Listing(sort_by=by)).splitlines()
        assert lines == ["WAIT", "10ns", "9s", "-"]


def test_an_unknown_field_to_sort_by_is_refused_with_those_there_are() -> None:
    with pytest.raises(click.UsageError, match="no field 'colour' to sort by; one of name, size"):
        show_rows("peers", PEERS, Listing(sort_by="colour"))


def test_titles_can_be_left_out() -> None:
    text = show_rows("peers", PEERS, Listing(headers=False), ["name", "size"])
    assert text.splitlines() == ["n3  3K", "n1  1K", "n2  2K"]


def test_columns_that_do_not_fit_follow_below_and_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    assert show_rows("peers", PEERS[:1], Format.TABLE).splitlines()[0] == "NAME  SIZE  STATE"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert show_rows("peers", PEERS[:1], Format.TABLE).splitlines() == [
        "NAME  SIZE",
        "    STATE",
        "n3      3K",
        "    live",
    ]
    assert show_rows("peers", PEERS[:1], Format.WIDE).splitlines()[0] == "NAME  SIZE  STATE"
    monkeypatch.setenv("COLUMNS", "1")
    assert len(show_rows("peers", PEERS[:1], Format.TABLE).splitlines()) == 6


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (99_500_000_000, "99.5s"),
        (2008_555_000_000, "33m28s"),
        (7500_000_000_000, "2h5m"),
        (3600_000_000_000, "1h"),
        (86_400_000_000_000 * 3 + 5, "3d"),
        (1_500_000, "1.5ms"),
    ],
)
def test_long_times_are_told_in_hours_and_without_the_name_of_the_unit(
    time_ns: int, text: str
) -> None:
    assert outline({"uptime_ns": time_ns, "x": 1}).splitlines()[0] == f"uptime: {text}"
    assert grid([{"uptime_ns": time_ns}], ["uptime_ns"]).splitlines()[1].strip() == text
